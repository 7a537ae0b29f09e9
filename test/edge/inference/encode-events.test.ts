/**
 * Events that only add text are passed on without being parsed. Whatever a worker sends, clients
 * get the same bytes, and the same is counted, as if each had been.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createAnthropicEncoder } from '../../../edge/dialects/anthropic/events.ts';
import { createAnthropicAnswer } from '../../../edge/dialects/anthropic/answer.ts';
import { createChatAnswer } from '../../../edge/dialects/openai/chat-answer.ts';
import { createOpenAiEncoder } from '../../../edge/dialects/openai/events.ts';
import { createTextAnswer } from '../../../edge/dialects/openai/text-answer.ts';
import { eventEncoder, wholeChunk } from '../../../edge/inference/encode-events.ts';
import type { Usage } from '../../../edge/money.ts';
import { bytesOf } from '../../../edge/relay/post.ts';
import { readWorkerStream } from '../../../edge/relay/worker-stream.ts';

const head = { id: 'a-1', model: 'public' };
const formats = {
  chat: [
    {
      encoder: () => createOpenAiEncoder(head, { usage: false, runningUsage: false }),
      builder: () => createChatAnswer(head),
    },
    {
      encoder: () => createOpenAiEncoder(head, { usage: true, runningUsage: false }),
      builder: () => createChatAnswer(head),
    },
    ...[true, false].map((hidesThinking) => ({
      encoder: () => createAnthropicEncoder(head, 'r-1', { hidesThinking }),
      builder: () => createAnthropicAnswer(head, { hidesThinking }),
    })),
  ],
  text: [
    {
      encoder: () => createOpenAiEncoder(head, { usage: true, runningUsage: false }),
      builder: () => createTextAnswer(head),
    },
  ],
} as const;
type AnswerKind = keyof typeof formats;

interface Relayed {
  readonly texts: readonly string[];
  readonly answers: readonly string[];
  readonly usage: Usage | null;
  /** Counts the events that were not parsed. */
  readonly joined: number;
}

async function relay(pieces: readonly string[], kind: AnswerKind, joinsTexts: boolean) {
  const encoder = new TextEncoder();
  const rest = [...pieces];
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const piece = rest.shift();
      if (piece === undefined) controller.close();
      else controller.enqueue(encoder.encode(piece));
    },
  });
  const written = formats[kind].map((format) => ({
    encode: eventEncoder(format.encoder()),
    builder: format.builder(),
    text: '',
  }));
  let usage: Usage | null = null;
  let joined = 0;
  const batches = readWorkerStream(bytesOf(body), {
    kind,
    requestId: 'r-1',
    stops: { strings: [], tokens: [] },
    answers: 1,
    reportsCachedTokens: true,
    secrets: [],
    joinsTexts,
    silenceMsMax: 60_000,
    bytesMax: 10_000_000,
    signal: new AbortController().signal,
  });
  for await (const event of flat(batches)) {
    usage = event.usage ?? usage;
    joined += event.texts?.length ?? 0;
    for (const each of written) {
      each.text += each.encode(event);
      each.builder.add(wholeChunk(event));
    }
  }
  const bill = {
    usage: usage ?? { ...nothing, inputCached: null },
    costNanoUsd: 1,
    cacheMissReason: null,
  };
  return {
    texts: written.map(({ text }) => text),
    answers: written.map(({ builder }) => JSON.stringify(builder.finish(bill))),
    usage,
    joined,
  } satisfies Relayed;
}

const nothing = { inputUncached: 0, inputCached: 0, outputText: 0, outputReasoning: 0 };

async function* flat<Item>(batches: AsyncIterable<readonly Item[]>): AsyncGenerator<Item, void> {
  for await (const batch of batches) yield* batch;
}

const spaced = (json: unknown): string => JSON.stringify(json, null, 1).replaceAll(/\n */g, ' ');
const inAscii = (json: unknown): string =>
  JSON.stringify(json).replaceAll(
    /[\u0080-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
const writers = [JSON.stringify, spaced, inAscii];

const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 8 }),
  fc.constantFrom('"', '\\', '\n\n', 'data: ', '\u2028', '', '}', 'content', '\u0001', '\ue000'),
);
const deltas = (field: string) => text.map((value) => ({ delta: { [field]: value }, text: value }));
const choice = fc.oneof(
  { weight: 10, arbitrary: deltas('content') },
  { weight: 3, arbitrary: deltas('reasoning_content') },
  { weight: 1, arbitrary: deltas('reasoning') },
  {
    weight: 1,
    arbitrary: fc.constantFrom<object>(
      { delta: {} },
      { delta: { tool_calls: [{ index: 0, id: 'c', function: { name: 'f', arguments: '{' } }] } },
      { delta: { content: 'x' }, text: 'x', logprobs: { content: [{ token: 'x' }] } },
      { delta: { content: 'x', role: 'assistant' }, text: 'x', index: 1 },
    ),
  },
);
const count = fc.oneof(fc.nat(200), fc.constantFrom(10, 999_999_999, 1_000_000_000));
const counts = fc.record({
  prompt_tokens: count,
  completion_tokens: count,
  prompt_tokens_details: fc.option(fc.record({ cached_tokens: fc.option(count) })),
});
const stream = fc.record({
  kind: fc.constantFrom<AnswerKind>('chat', 'text'),
  write: fc.constantFrom(...writers),
  /** Some engines put the counts first, some state none until the end. */
  usage: fc.constantFrom('first', 'last', 'none'),
  alike: fc.option(counts),
  events: fc.array(fc.record({ choice, usage: counts, created: fc.constantFrom(1, 1, 1, 2) }), {
    maxLength: 30,
  }),
  cuts: fc.array(fc.nat(4_000), { maxLength: 6 }),
});

test('texts that are passed on unparsed are the bytes and counts of parsed ones', async () => {
  let joined = 0;
  await fc.assert(
    fc.asyncProperty(stream, async ({ kind, write, usage, alike, events, cuts }) => {
      const written = events.map((event) => {
        const { delta, text: said, ...more }: { delta?: object; text?: string } = event.choice;
        const piece = kind === 'chat' ? { delta } : { text: said };
        const choices = [{ index: 0, ...piece, logprobs: null, finish_reason: null, ...more }];
        const rest = { id: 'w', object: 'chunk', created: event.created, choices };
        const counted = { usage: alike ?? event.usage };
        if (usage === 'none') return write(rest);
        return write(usage === 'first' ? { ...counted, ...rest } : { ...rest, ...counted });
      });
      const all = [...written, '[DONE]'].map((data) => `data: ${data}\n\n`).join('');
      const ends = [...cuts.filter((cut) => cut < all.length), all.length].toSorted(
        (a, b) => a - b,
      );
      const pieces = ends.map((end, index) => all.slice(ends[index - 1] ?? 0, end));
      const [unparsed, parsed] = [
        await relay(pieces, kind, true),
        await relay(pieces, kind, false),
      ];
      joined += unparsed.joined;
      expect({ ...unparsed, joined: 0 }).toEqual(parsed);
    }),
    { numRuns: 300 },
  );
  expect(joined).toBeGreaterThan(100);
});

test('the tokens of a plain answer are parsed no more after the first', async () => {
  const events = Array.from({ length: 100 }, (_, index) => ({
    id: 'w',
    object: 'chat.completion.chunk',
    created: 1,
    choices: [
      {
        index: 0,
        delta: { ...(index === 0 && { role: 'assistant' }), content: `${index} "é"\n` },
        logprobs: null,
        finish_reason: null,
      },
    ],
    usage: { prompt_tokens: 9, completion_tokens: index + 1, total_tokens: index + 10 },
  }));
  const pieces = [...events.map((event) => JSON.stringify(event)), '[DONE]'];
  const sent = [pieces.map((data) => `data: ${data}\n\n`).join('')];
  const { joined, usage } = await relay(sent, 'chat', true);
  expect(joined).toBe(98);
  expect(usage).toMatchObject({ outputText: 100 });
});
