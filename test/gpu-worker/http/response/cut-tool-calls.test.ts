/**
 * Answers that end inside of a tool call: a forced call of a model that talks noise, cut at every
 * token, and written calls with the reasoning, stop strings and log-probabilities around them.
 */
import { describe, expect, test } from 'vitest';
import type {
  ChatCompletion,
  ChatCompletionChunk,
} from '../../../../gpu-worker/protocol/responses.ts';
import { addToCalls } from '../../../../gpu-worker/chat-formats/call-parser.ts';
import { markCharacter } from '../../../../gpu-worker/chat-formats/deepseek-v31-calls.ts';
import type { ToolCall } from '../../../../gpu-worker/protocol/messages.ts';
import { openChatFormat } from '../../../../gpu-worker/chat-formats/chat-formats.ts';
import { answering, httpWorker, parseEvents } from '../../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../../support/worker/http-worker.ts';
import { noiseEngine } from '../../../support/worker/noise-engine.ts';
import type { Script } from '../../../support/worker/scripted-engine.ts';
import { deepseek, deepseekFiles, deepseekV3Files } from '../../tokenizer/fixture.ts';
import type { TokenizerFixture } from '../../tokenizer/fixture.ts';

const vocabSize = 129_280;
const begin = '<｜tool▁calls▁begin｜>';
const callBegin = '<｜tool▁call▁begin｜>';
const separator = '<｜tool▁sep｜>';
const callEnd = '<｜tool▁call▁end｜>';
const end = '<｜tool▁calls▁end｜>';

const parameters = {
  type: 'object',
  properties: { city: { type: 'string', minLength: 8, maxLength: 8 } },
  required: ['city'],
  additionalProperties: false,
};
const tools = [
  { type: 'function', function: { name: 'look', parameters } },
  { type: 'function', function: { name: 'clock', parameters, strict: true } },
];
const question = { model: 'tiny', messages: [{ role: 'user', content: 'Warm?' }], tools };

function workerOf(
  files: TokenizerFixture,
  options: { script?: Script; noise?: boolean },
): Promise<HttpWorker> {
  const chatFormat = openChatFormat({
    tokenizerConfig: files.tokenizerConfig,
    tokenizer: deepseek,
  });
  return httpWorker({
    script: options.script ?? { answer: () => [] },
    vocabSize,
    model: {
      tokenizer: deepseek,
      chatFormat,
      ...(options.noise && { engine: noiseEngine(deepseek, vocabSize) }),
    },
  });
}

async function post(worker: HttpWorker, body: object): Promise<Response> {
  const response = await worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-request-id': 'req' },
    body: JSON.stringify(body),
  });
  expect(response.status).toBe(200);
  return response;
}

async function whole(worker: HttpWorker, body: object): Promise<ChatCompletion['choices'][number]> {
  const [choice] = ((await (await post(worker, body)).json()) as ChatCompletion).choices;
  if (!choice) throw new Error('the answer has no choice');
  return choice;
}

async function streamed(worker: HttpWorker, body: object): Promise<ChatCompletionChunk[]> {
  const text = await (await post(worker, { ...body, stream: true })).text();
  return parseEvents(text).slice(0, -1) as ChatCompletionChunk[];
}

/** The streamed answer as the whole one would be. */
function joined(chunks: readonly ChatCompletionChunk[]) {
  const toolCalls: ToolCall[] = [];
  let content = '';
  let finish: string | null = null;
  for (const { choices } of chunks) {
    content += choices[0]?.delta.content ?? '';
    addToCalls(toolCalls, choices[0]?.delta.tool_calls ?? []);
    finish = choices[0]?.finish_reason ?? finish;
  }
  return { content, toolCalls, finish };
}

/** The tokens, as bytes, of a call that noise makes within the grammar of a forced one. */
async function noiseCall(files: TokenizerFixture, forced: object) {
  await using worker = await workerOf(files, { noise: true });
  const body = { ...forced, seed: 3, max_tokens: 400, logprobs: true };
  const { message, logprobs, finish_reason: finish } = await whole(worker, body);
  expect(finish).toBe('tool_calls');
  // The last token ends the answer and has no text.
  const tokens = (logprobs?.content ?? []).slice(0, -1).map(({ bytes }) => Buffer.from(bytes));
  return { tokens, call: message.tool_calls?.[0]?.function };
}

/** Repeats tokens as the engine would give them: what ends within a character ends in U+FFFD. */
function repeating(tokens: readonly Uint8Array[]): Script {
  return {
    answer: ({ outputTokensMax }) => {
      const decoder = new TextDecoder();
      return tokens.map((bytes, index) => ({
        token: 100,
        text: decoder.decode(bytes, { stream: index + 1 < outputTokensMax }),
      }));
    },
  };
}

const isSubstantial = ({ choices }: ChatCompletionChunk): boolean => {
  const { content, reasoning_content: reasoning, tool_calls: calls } = choices[0]?.delta ?? {};
  return Boolean(content || reasoning || calls);
};

describe.each([
  ['V3.1', deepseekFiles],
  ['V3', deepseekV3Files],
] as const)('a forced call in the form of %s', (_, files) => {
  test.each([
    ['required', 'required'],
    ['named', { type: 'function', function: { name: 'clock' } }],
  ])('%s, cut at every token, shows no mark and all of the arguments', async (_name, choice) => {
    const forced = { ...question, tool_choice: choice, parallel_tool_calls: false };
    const { tokens, call: fullCall } = await noiseCall(files, forced);
    await using worker = await workerOf(files, { script: repeating(tokens) });
    let cuts = 0;
    for (let max = 1; ; max++) {
      const body = { ...forced, max_tokens: max };
      const { message, finish_reason: finish } = await whole(worker, body);
      const chunks = await streamed(worker, body);
      expect(joined(chunks)).toEqual({
        content: message.content ?? '',
        toolCalls: message.tool_calls ?? [],
        finish,
      });
      if (finish === 'tool_calls') break;
      cuts++;
      expect(finish).toBe('length');
      expect(message.content ?? '').toBe('');
      const call = message.tool_calls?.[0]?.function;
      if (call) expect(call.name).toBe(fullCall?.name);
      expect(fullCall?.arguments.startsWith(call?.arguments ?? '')).toBe(true);
      expect(JSON.stringify([message, chunks])).not.toContain(markCharacter);
    }
    expect(cuts).toBeGreaterThan(8);
  });
});

const json = JSON.stringify({ text: 'x'.repeat(200) });
const pieces = json.match(/.{1,4}/g) ?? [];
const called = answering(begin, callBegin, 'look', separator, ...pieces, callEnd, end);

test('arguments of 200 characters come in pieces, with no empty delta among them', async () => {
  await using worker = await workerOf(deepseekFiles, { script: called });
  const chunks = await streamed(worker, question);
  const { toolCalls, finish } = joined(chunks);
  expect(toolCalls[0]?.function.arguments).toBe(json);
  expect(finish).toBe('tool_calls');
  expect(chunks.filter((chunk) => chunk.choices[0]?.delta.tool_calls)).toHaveLength(
    1 + pieces.length,
  );
  expect(chunks.slice(1, -1).every(isSubstantial)).toBe(true);
});

test('running usage is told of every token of a call', async () => {
  await using worker = await workerOf(deepseekFiles, { script: called });
  const chunks = await streamed(worker, {
    ...question,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  const counts = chunks.map((chunk) => chunk.usage?.completion_tokens);
  expect([...new Set(counts)]).toEqual(Array.from({ length: pieces.length + 7 }, (_, i) => i));
  expect(chunks.map((chunk) => chunk.choices[0]?.delta).slice(1)).not.toContainEqual({
    content: '',
  });
});

test('the log-probabilities of a call stand beside its pieces', async () => {
  await using worker = await workerOf(deepseekFiles, { script: called });
  const chunks = await streamed(worker, { ...question, logprobs: true });
  expect(chunks.slice(1, -1).every(isSubstantial)).toBe(true);
  const tokens = chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? []);
  const answer = await whole(worker, { ...question, logprobs: true });
  expect(tokens).toEqual(answer.logprobs?.content);
  expect(tokens).toHaveLength(pieces.length + 6);
});

test('a stop string within the arguments ends the call where it matched', async () => {
  const words = ['{"a":', '"one ', 'two ', 'three"}', callEnd, end];
  const tokens = [begin, callBegin, 'look', separator, ...words].flatMap((text) => [
    ...deepseek.encode(text),
  ]);
  const chatFormat = openChatFormat({
    tokenizerConfig: deepseekFiles.tokenizerConfig,
    tokenizer: deepseek,
  });
  await using worker = await httpWorker({
    vocabSize,
    script: stoppedAt(tokens, 'two'),
    model: { tokenizer: deepseek, chatFormat },
  });
  const { message, finish_reason: finish } = await whole(worker, { ...question, stop: 'two' });
  expect(message.tool_calls?.map((call) => call.function)).toEqual([
    { name: 'look', arguments: '{"a":"one ' },
  ]);
  expect([message.content, finish]).toEqual([null, 'stop']);
});

/** The text of the tokens up to the stop string; the scripted engine itself looks for none. */
function stoppedAt(tokens: readonly number[], stop: string): Script {
  const text = deepseek.decode(tokens, { skipSpecial: false });
  return {
    answer: () => [{ token: 100, text: text.slice(0, text.indexOf(stop)) }],
    stopMatch: stop,
  };
}

test('a call within the reasoning is a call, and its marks are not shown', async () => {
  const script = answering('Hm, ', begin, callBegin, 'look', separator, '{}', callEnd, end);
  await using worker = await workerOf(deepseekFiles, { script });
  const body = { ...question, thinking: { type: 'enabled' } };
  const { message } = await whole(worker, body);
  expect(message).toMatchObject({
    reasoning_content: 'Hm, ',
    content: null,
    tool_calls: [{ function: { name: 'look', arguments: '{}' } }],
  });
  const deltas = (await streamed(worker, body)).map((chunk) => chunk.choices[0]?.delta);
  expect(deltas[1]).toEqual({ reasoning_content: 'Hm, ' });
  expect(JSON.stringify(deltas)).not.toContain(markCharacter);
});

test('text that the reasoning held back does not go on in the answer', async () => {
  const think = deepseek.controlToken('</think>') ?? -1;
  const script: Script = {
    answer: () => [
      { token: 100, text: 'a <' },
      { token: think, text: '' },
      { token: 101, text: '｜tool▁calls▁begin｜>b' },
    ],
  };
  await using worker = await workerOf(deepseekFiles, { script });
  const body = { ...question, thinking: { type: 'enabled' } };
  const { message } = await whole(worker, body);
  expect(message).toMatchObject({
    reasoning_content: 'a <',
    content: '｜tool▁calls▁begin｜>b',
  });
});
