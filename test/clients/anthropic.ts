/**
 * Anthropic's client. Run it against a system of your own:
 *
 *     SIFT_URL=http://127.0.0.1:8787 SIFT_KEY=sk-sift-... node test/clients/anthropic.ts
 */
import { readFileSync } from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';

const { SIFT_URL: url, SIFT_KEY: apiKey = '', SIFT_MODEL: model = 'sift-tiny' } = process.env;
const client = new Anthropic({ baseURL: `${url}/anthropic`, apiKey });

const documentFile = new URL('../../gpu-worker/models/tiny/demo/document.txt', import.meta.url);
const document = readFileSync(documentFile, 'utf8').slice(0, 1_800);
const question = 'What is the access code of Rivoka?';
const asking = (content: string) => ({
  model,
  temperature: 0,
  max_tokens: 400,
  messages: [{ role: 'user' as const, content }],
});
const Fact = z.object({ isKnown: z.boolean(), isNumber: z.boolean() });
const readPage = {
  name: 'read_page',
  description: 'The text of a page.',
  inputSchema: z.object({ page: z.int().min(1).max(9), title: z.enum(['Letters', 'Manual']) }),
};
const readPageTool: Anthropic.Tool = {
  name: readPage.name,
  description: readPage.description,
  // The schema of an object, which zod's type does not say.
  input_schema: z.toJSONSchema(readPage.inputSchema) as Anthropic.Tool.InputSchema,
};
const textOf = (answer: { content: readonly { type: string; text?: string }[] }) =>
  answer.content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('');

async function chat() {
  const answer = await client.messages.create(asking(`${document}\n\n${question}`));
  const { input_tokens: counted } = await client.messages.countTokens({
    model,
    messages: asking(`${document}\n\n${question}`).messages,
  });
  return { text: textOf(answer), finish: answer.stop_reason, counted, usages: [answer.usage] };
}

async function stream() {
  const events = client.messages.stream(asking(`${document}\n\n${question}`));
  const pieces: string[] = [];
  events.on('text', (piece) => pieces.push(piece));
  const answer = await events.finalMessage();
  return { text: textOf(answer), pieces, usages: [answer.usage] };
}

async function tools() {
  const { messages, ...rest } = asking(question);
  const options = { ...rest, tools: [readPageTool] };
  const first = await client.messages.create({
    ...options,
    messages,
    tool_choice: { type: 'any', disable_parallel_tool_use: true },
  });
  const call = first.content.find((block) => block.type === 'tool_use');
  if (!call) throw new Error('the model called no tool');
  const second = await client.messages.create({
    ...options,
    messages: [
      ...messages,
      { role: 'assistant', content: first.content },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: document }] },
    ],
  });
  return {
    name: call.name,
    input: call.input,
    finish: first.stop_reason,
    text: textOf(second),
    usages: [first.usage, second.usage],
  };
}

async function streamedTools() {
  const events = client.messages.stream({
    ...asking(question),
    tools: [readPageTool],
    tool_choice: { type: 'tool', name: readPage.name },
  });
  const pieces: string[] = [];
  events.on('inputJson', (piece) => pieces.push(piece));
  const answer = await events.finalMessage();
  const call = answer.content.find((block) => block.type === 'tool_use');
  return {
    name: call?.name,
    input: call?.input,
    finish: answer.stop_reason,
    pieces,
    usages: [answer.usage],
  };
}

/** The client's own loop of calls and results. */
async function toolRunner() {
  const runner = client.beta.messages.toolRunner({
    ...asking(question),
    tools: [betaZodTool({ ...readPage, run: () => document })],
    tool_choice: { type: 'any', disable_parallel_tool_use: true },
    max_iterations: 4,
  });
  const texts: string[] = [];
  const usages: unknown[] = [];
  for await (const answer of runner) {
    texts.push(textOf(answer));
    usages.push(answer.usage);
    if (answer.stop_reason !== 'tool_use') continue;
    // The first turn must call; what the model does then is its own choice.
    runner.setMessagesParams((params) => ({
      ...params,
      tool_choice: { type: 'auto' },
      messages: [...params.messages, { role: 'assistant', content: answer.content }],
    }));
  }
  return { text: texts.at(-1), turns: texts.length, usages };
}

async function structured() {
  const answer = await client.messages.parse({
    ...asking(`${document}\n\n${question}`),
    output_config: { format: zodOutputFormat(Fact) },
  });
  return { object: answer.parsed_output, usages: [answer.usage] };
}

async function reasoning() {
  const { temperature: _temperature, ...asked } = asking(`${document}\n\n${question}`);
  const answer = await client.messages.create({ ...asked, thinking: { type: 'adaptive' } });
  const thought = answer.content.find((block) => block.type === 'thinking');
  return { reasoning: thought?.thinking, text: textOf(answer), usages: [answer.usage] };
}

/** The second of two equal questions finds its prompt cached. */
async function cached() {
  const ask = () => client.messages.create(asking(`Once more.\n\n${document}\n\n${question}`));
  const usages = [(await ask()).usage, (await ask()).usage];
  return { tokens: usages.map((usage) => usage.cache_read_input_tokens), usages };
}

async function limits() {
  const cut = await client.messages.create({ ...asking('Who are you?'), max_tokens: 3 });
  const stopped = await client.messages.create({
    ...asking('Who are you?'),
    stop_sequences: ['sparse', 'never said'],
  });
  return {
    cut: [cut.stop_reason, cut.usage.output_tokens],
    stopped: [stopped.stop_reason, textOf(stopped), stopped.stop_sequence],
    usages: [cut.usage, stopped.usage],
  };
}

async function errors() {
  const refused = async (asked: Promise<unknown>) => {
    const error = await asked.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof Anthropic.APIError)) throw error;
    return [error.constructor.name, error.status, error.type];
  };
  const stranger = new Anthropic({ baseURL: `${url}/anthropic`, apiKey: 'sk-sift-stranger' });
  const hello = asking('Hello');
  return {
    key: await refused(stranger.messages.create(hello)),
    model: await refused(client.messages.create({ ...hello, model: 'claude-nobody' })),
    overflow: await refused(
      client.messages.create({ ...hello, max_tokens: 200_000, stream: true }),
    ),
  };
}

/** Whoever leaves pays for what was computed until then. */
async function abort() {
  const events = client.messages.stream(asking('Tell me a long story.'));
  let pieces = 0;
  events.on('text', () => {
    if (++pieces === 3) events.abort();
  });
  const isAborted = await events.done().then(
    () => false,
    (reason: unknown) => reason instanceof Anthropic.APIUserAbortError,
  );
  return { pieces, isAborted };
}

const scenarios = [chat, stream, tools, streamedTools, toolRunner, structured, reasoning, cached];
for (const scenario of [...scenarios, limits, errors, abort]) {
  console.log(JSON.stringify({ [scenario.name]: await scenario() }));
}
