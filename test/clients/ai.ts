/**
 * Vercel's AI SDK with each of the providers that can be pointed at a system of your own:
 *
 *     SIFT_URL=http://127.0.0.1:8787 SIFT_KEY=sk-sift-... node test/clients/ai.ts deepseek
 */
import { readFileSync } from 'node:fs';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createDeepSeek } from '@ai-sdk/deepseek';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, isStepCount, Output, streamText, tool } from 'ai';
import { z } from 'zod';

const { SIFT_URL: url, SIFT_KEY = '', SIFT_MODEL: modelId = 'sift-tiny' } = process.env;
const [provider = 'openai-compatible'] = process.argv.slice(2);

function modelOf(apiKey: string, id: string) {
  switch (provider) {
    case 'openai':
      return createOpenAI({ baseURL: `${url}/v1`, apiKey }).chat(id);
    case 'openai-responses':
      // The provider's default.
      return createOpenAI({ baseURL: `${url}/v1`, apiKey })(id);
    case 'deepseek':
      return createDeepSeek({ baseURL: `${url}`, apiKey })(id);
    case 'anthropic':
      return createAnthropic({ baseURL: `${url}/anthropic/v1`, apiKey })(id);
    case 'openai-compatible':
      return createOpenAICompatible({
        name: 'sift',
        baseURL: `${url}/v1`,
        apiKey,
        includeUsage: true,
        supportsStructuredOutputs: true,
      })(id);
    default:
      throw new Error(`there is no provider ${provider}`);
  }
}

const documentFile = new URL('../../gpu-worker/models/tiny/demo/document.txt', import.meta.url);
const document = readFileSync(documentFile, 'utf8').slice(0, 1_800);
const question = 'What is the access code of Rivoka?';
const asking = (prompt: string) => ({
  model: modelOf(SIFT_KEY, modelId),
  prompt,
  temperature: 0,
  maxOutputTokens: 400,
  maxRetries: 0,
  // DeepSeek's models think unless they are told not to.
  ...(provider !== 'openai-responses' && { reasoning: 'none' as const }),
  // The provider names items by their ids, as if all of them were stored unless it says otherwise.
  ...(provider === 'openai-responses' && { providerOptions: { openai: { store: true } } }),
  telemetry: { isEnabled: false },
});
const Fact = z.object({ isKnown: z.boolean(), isNumber: z.boolean() });
const readPage = tool({
  description: 'The text of a page.',
  inputSchema: z.object({
    page: z.int().min(1).max(9),
    title: z.enum(['Letters', 'Manual']),
  }),
  execute: () => document,
});

async function chat() {
  const answer = await generateText(asking(`${document}\n\n${question}`));
  return {
    text: answer.text,
    finish: answer.finishReason,
    cost: answer.response.headers?.['x-sift-cost-nano-usd'],
    usages: [answer.usage],
  };
}

async function stream() {
  const answer = streamText(asking(`${document}\n\n${question}`));
  const pieces = await Array.fromAsync(answer.textStream);
  return { text: await answer.text, pieces, usages: [await answer.usage] };
}

async function tools() {
  const answer = await generateText({
    ...asking(question),
    tools: { read_page: readPage },
    // The first step calls, the second one answers.
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'auto' }),
    stopWhen: isStepCount(2),
  });
  const [first] = answer.steps;
  return {
    name: first?.toolCalls[0]?.toolName,
    input: first?.toolCalls[0]?.input,
    finish: first?.finishReason,
    text: answer.text,
    usages: answer.steps.map(({ usage }) => usage),
  };
}

async function streamedTools() {
  const answer = streamText({
    ...asking(question),
    tools: { read_page: readPage },
    toolChoice: { type: 'tool', toolName: 'read_page' },
  });
  const pieces: string[] = [];
  for await (const part of answer.stream) {
    if (part.type === 'tool-input-delta') pieces.push(part.delta);
  }
  const [call] = await answer.toolCalls;
  return {
    name: call?.toolName,
    input: call?.input,
    finish: await answer.finishReason,
    pieces,
    usages: [await answer.usage],
  };
}

async function structured() {
  const answer = await generateText({
    ...asking(`${document}\n\n${question}`),
    // DeepSeek's provider asks for any JSON and puts the schema into words.
    output: provider === 'deepseek' ? Output.json() : Output.object({ schema: Fact }),
  });
  return { object: answer.output, usages: [answer.usage] };
}

async function reasoning() {
  // Providers take a temperature only where nothing is thought.
  const { temperature: _temperature, ...asked } = asking(`${document}\n\n${question}`);
  const thinking = { forceReasoning: true, reasoningEffort: 'high', reasoningSummary: 'auto' };
  const answer = await generateText(
    provider === 'openai-responses'
      ? { ...asked, providerOptions: { openai: { store: false, ...thinking } } }
      : { ...asked, reasoning: 'high' },
  );
  return { reasoning: answer.reasoningText, text: answer.text, usages: [answer.usage] };
}

/** The second of two equal questions finds its prompt cached. */
async function cached() {
  const ask = () => generateText(asking(`Once more.\n\n${document}\n\n${question}`));
  const usages = [(await ask()).usage, (await ask()).usage];
  return { tokens: usages.map((usage) => usage.inputTokenDetails.cacheReadTokens), usages };
}

async function limits() {
  const cut = await generateText({ ...asking('Who are you?'), maxOutputTokens: 3 });
  // The Responses API has no stop sequences.
  if (provider === 'openai-responses') {
    return { cut: [cut.finishReason, cut.usage.outputTokens], usages: [cut.usage] };
  }
  const stopped = await generateText({ ...asking('Who are you?'), stopSequences: ['sparse'] });
  return {
    cut: [cut.finishReason, cut.usage.outputTokens],
    stopped: [stopped.finishReason, stopped.text],
    usages: [cut.usage, stopped.usage],
  };
}

async function errors() {
  const refused = async (change: object) => {
    const error = await generateText({ ...asking('Hello'), ...change }).catch(
      (reason: unknown) => reason,
    );
    if (!APICallError.isInstance(error)) throw error;
    return [error.name, error.statusCode, error.message];
  };
  return {
    key: await refused({ model: modelOf('sk-sift-stranger', modelId) }),
    model: await refused({ model: modelOf(SIFT_KEY, 'gpt-nobody') }),
    overflow: await refused({ maxOutputTokens: 1_000_000 }),
  };
}

/** Whoever leaves pays for what was computed until then. */
async function abort() {
  const leaving = new AbortController();
  const answer = streamText({
    ...asking('Tell me a long story.'),
    abortSignal: leaving.signal,
  });
  let pieces = 0;
  for await (const part of answer.stream) {
    if (part.type === 'text-delta' && ++pieces === 3) leaving.abort();
  }
  return { pieces };
}

const scenarios = [chat, stream, tools, streamedTools, structured, reasoning, cached, limits];
for (const scenario of [...scenarios, errors, abort]) {
  console.log(JSON.stringify({ [scenario.name]: await scenario() }));
}
