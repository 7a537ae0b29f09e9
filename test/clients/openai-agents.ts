/**
 * OpenAI's agents, in chat mode or in their default, the Responses API:
 *
 *     SIFT_URL=http://127.0.0.1:8787 SIFT_KEY=sk-sift-... node test/clients/openai-agents.ts chat
 */
import { readFileSync } from 'node:fs';
import {
  Agent,
  run,
  setDefaultOpenAIClient,
  setOpenAIAPI,
  setTracingDisabled,
  tool,
} from '@openai/agents';
import OpenAI from 'openai';
import { z } from 'zod';

const { SIFT_URL: url, SIFT_KEY: apiKey, SIFT_MODEL: model = 'sift-tiny' } = process.env;
setTracingDisabled(true);
const isChat = process.argv[2] === 'chat';
if (isChat) setOpenAIAPI('chat_completions');
setDefaultOpenAIClient(new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }));

const documentFile = new URL('../../gpu-worker/models/tiny/demo/document.txt', import.meta.url);
const document = readFileSync(documentFile, 'utf8').slice(0, 1_800);
const question = 'What is the access code of Rivoka?';
const settings = { temperature: 0, maxTokens: 400 };
const readPage = tool({
  name: 'read_page',
  description: 'The text of a page.',
  parameters: z.object({ page: z.int().min(1).max(9), title: z.enum(['Letters', 'Manual']) }),
  execute: () => document,
});
const agent = new Agent({ name: 'Reader', model, modelSettings: settings });
/** It must call a tool first; what it does then is its own choice. */
const caller = new Agent({
  name: 'Caller',
  model,
  modelSettings: { ...settings, toolChoice: 'required', parallelToolCalls: false },
  tools: [readPage],
});
const usagesOf = (result: { rawResponses: readonly { usage: unknown }[] }) =>
  result.rawResponses.map(({ usage }) => usage);

async function chat() {
  const result = await run(agent, `${document}\n\n${question}`);
  return { text: result.finalOutput, usages: usagesOf(result) };
}

async function stream() {
  const asked = `${document}\n\n${question}`;
  const result = await run(agent, asked, { stream: true });
  const pieces: string[] = [];
  for await (const event of result) {
    if (event.type !== 'raw_model_stream_event') continue;
    if (event.data.type === 'output_text_delta') pieces.push(event.data.delta);
  }
  await result.completed;
  return { text: result.finalOutput, pieces, usages: usagesOf(result) };
}

function callOf(result: { newItems: readonly { rawItem?: unknown }[] }) {
  const Call = z.object({
    type: z.literal('function_call'),
    name: z.string(),
    arguments: z.string(),
  });
  const [call] = result.newItems.flatMap(({ rawItem }) => Call.safeParse(rawItem).data ?? []);
  return { name: call?.name, input: JSON.parse(call?.arguments ?? 'null') };
}

async function tools() {
  const result = await run(caller, question);
  return { ...callOf(result), text: result.finalOutput, usages: usagesOf(result) };
}

async function streamedTools() {
  const result = await run(caller, question, { stream: true });
  await result.completed;
  return { ...callOf(result), text: result.finalOutput, usages: usagesOf(result) };
}

async function structured() {
  const outputType = z.object({ isKnown: z.boolean(), isNumber: z.boolean() });
  const extractor = new Agent({ name: 'Extractor', model, modelSettings: settings, outputType });
  const result = await run(extractor, `${document}\n\n${question}`);
  return { object: result.finalOutput, usages: usagesOf(result) };
}

async function reasoning() {
  const modelSettings = { ...settings, reasoning: { effort: 'high' as const } };
  if (!isChat) return await summarized(modelSettings);
  const thinker = new Agent({ name: 'Thinker', model, modelSettings });
  const result = await run(thinker, `${document}\n\n${question}`);
  // DeepSeek's field, which the agents keep beside the text.
  const Thought = z.object({ providerData: z.object({ reasoning_content: z.string() }) });
  const Answer = z.object({ content: z.tuple([Thought]) });
  const { content } = Answer.parse(result.newItems[0]?.rawItem);
  return {
    reasoning: content[0].providerData.reasoning_content,
    text: result.finalOutput,
    usages: usagesOf(result),
  };
}

/** The Responses API shows reasoning as an item of its own. */
async function summarized(modelSettings: object) {
  const thinking = { effort: 'high' as const, summary: 'auto' as const };
  const thinker = new Agent({
    name: 'Thinker',
    model,
    modelSettings: { ...modelSettings, reasoning: thinking },
  });
  const result = await run(thinker, `${document}\n\n${question}`);
  const Reasoning = z.object({
    type: z.literal('reasoning'),
    content: z.tuple([z.object({ text: z.string() })]),
  });
  const [found] = result.newItems.flatMap(({ rawItem }) => Reasoning.safeParse(rawItem).data ?? []);
  return {
    reasoning: found?.content[0].text,
    text: result.finalOutput,
    usages: usagesOf(result),
  };
}

/** One agent hands over to another, which answers. */
async function handoff() {
  const desk = new Agent({
    name: 'Desk',
    model,
    modelSettings: { ...settings, toolChoice: 'required', parallelToolCalls: false },
    handoffs: [agent],
  });
  const result = await run(desk, `${document}\n\n${question}`);
  return {
    agent: result.lastAgent?.name,
    text: result.finalOutput,
    usages: usagesOf(result),
  };
}

/** The second of two equal questions finds its prompt cached. */
async function cached() {
  const ask = () => run(agent, `Once more.\n\n${document}\n\n${question}`);
  const results = [await ask(), await ask()];
  return {
    tokens: results.map(({ state }) => state.usage.inputTokensDetails[0]?.['cached_tokens']),
    usages: results.flatMap(usagesOf),
  };
}

async function errors() {
  const refused = async (asked: Promise<unknown>) => {
    const error = await asked.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof OpenAI.APIError)) throw error;
    return [error.constructor.name, error.status, error.code];
  };
  const changed = (change: object) => new Agent({ name: 'Changed', model, ...change });
  return {
    model: await refused(run(changed({ model: 'gpt-nobody' }), 'Hello')),
    overflow: await refused(run(changed({ modelSettings: { maxTokens: 1_000_000 } }), 'Hello')),
  };
}

/** Whoever leaves pays for what was computed until then. */
async function abort() {
  const leaving = new AbortController();
  const result = await run(agent, 'Tell me a long story.', {
    stream: true,
    signal: leaving.signal,
  });
  let pieces = 0;
  for await (const event of result) {
    if (event.type !== 'raw_model_stream_event') continue;
    if (event.data.type === 'output_text_delta' && ++pieces === 3) leaving.abort();
  }
  return { pieces };
}

const scenarios = [chat, stream, tools, streamedTools, structured, reasoning, handoff, cached];
for (const scenario of [...scenarios, errors, abort]) {
  console.log(JSON.stringify({ [scenario.name]: await scenario() }));
}
