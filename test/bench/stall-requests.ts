/**
 * Requests that are large or costly to read, to compute or to answer, for the benchmark of how long
 * they keep an event loop. All are within the limits that the routes state, or are refused.
 */
import { servedModel } from '../hostile/system.ts';

const bodyBytes = 8 * 2 ** 20 - 4_096;
const chatPath = '/v1/chat/completions';
const textPath = '/v1/completions';
const messagesPath = '/anthropic/v1/messages';

export interface StallRequest {
  readonly path: string;
  /** Without the model; a text is a whole body. */
  readonly body: () => object | string;
}

const repeated = (text: string): string =>
  text.repeat(Math.floor(bodyBytes / Buffer.byteLength(JSON.stringify(text).slice(1, -1))));
const listOf = <Item>(count: number, itemOf: (index: number) => Item): Item[] =>
  Array.from({ length: count }, (_, index) => itemOf(index));

const chat = (content: unknown, more: object = {}): StallRequest => ({
  path: chatPath,
  body: () => ({ messages: [{ role: 'user', content }], max_tokens: 1, ...more }),
});
const text = (prompt: unknown, more: object = {}): StallRequest => ({
  path: textPath,
  body: () => ({ prompt, max_tokens: 1, ...more }),
});
const anthropic = (messages: unknown, more: object = {}): StallRequest => ({
  path: messagesPath,
  body: () => ({ messages, max_tokens: 1, ...more }),
});
const held = (schema: object, more: object = {}): StallRequest =>
  chat('Hi', {
    response_format: { type: 'json_schema', json_schema: { name: 'a', strict: true, schema } },
    ...more,
  });
const objectOf = (properties: Record<string, object>): object => ({
  type: 'object',
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});

const random = listOf(2 ** 16, (at) => String.fromCodePoint(0x21 + ((at * at * 31 + at) % 93)));
const words = 'The quick brown fox jumps over the lazy dog, again. ';
const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
const longAnswer = { n: 8, max_tokens: 1_024, ignore_eos: true, temperature: 0 };
const tool = (at: number, parameters: object): object => ({
  type: 'function',
  function: { name: `tool_${at}`, description: 'A tool.', parameters },
});
const strings = (count: number): Record<string, object> =>
  Object.fromEntries(listOf(count, (at) => [`p${at}`, { type: 'string' }]));

/** Their bodies are made when they are sent: together they would fill the memory. */
export const stallRequests: Readonly<Record<string, () => StallRequest>> = {
  'blanks, 8 MB': () => chat(repeated(' ')),
  'words, 8 MB': () => chat(repeated(words)),
  'random ASCII, 8 MB': () => chat(repeated(random.join(''))),
  'digits, 8 MB': () => chat(repeated('1')),
  'line ends, 8 MB': () => chat(repeated('\n')),
  'Chinese, 8 MB': () => chat(repeated('日本語中文字')),
  'control characters, 8 MB': () => chat(repeated('\u0001')),
  'a prompt of blanks, 8 MB': () => text(repeated(' ')),
  'blanks that fit': () => chat(' '.repeat(2 ** 20)),
  '8192 messages, 8 MB': () => ({
    path: chatPath,
    body: () => ({
      messages: listOf(8_192, (at) => ({
        role: at % 2 === 0 ? 'user' : 'assistant',
        content: words.repeat(18),
      })),
      max_tokens: 1,
    }),
  }),
  '1024 parts in each of 100 messages': () => ({
    path: chatPath,
    body: () => ({
      messages: listOf(100, () => ({
        role: 'user',
        content: listOf(1_024, () => ({ type: 'text', text: words })),
      })),
      max_tokens: 1,
    }),
  }),
  'four million prompt ids': () => text(listOf(4_000_000, () => 1)),
  '64 prompts of 20,000 unknown ids': () => text(listOf(64, () => listOf(20_000, () => 9_000))),
  'a prompt of 5,000 ids': () => text(listOf(5_000, (at) => 300 + ((at * 7_919) % 600))),
  'a message of 8 MB nested JSON': () => ({
    path: chatPath,
    body: () => `{"model":"${servedModel}","messages":${nested(4_000_000)}}`,
  }),
  'tools nested 400 levels, 128 times': () =>
    chat('Hi', {
      tools: listOf(128, (at) => tool(at, { type: 'object', enum: JSON.parse(nested(400)) })),
    }),
  '128 tools, 8 MB': () =>
    chat('Hi', { tools: listOf(128, (at) => tool(at, objectOf(strings(1_500)))) }),
  '128 tools of 64 fields': () =>
    chat('Hi', { tools: listOf(128, (at) => tool(at, objectOf(strings(64)))), max_tokens: 64 }),
  'tools of 1,024 fields that fit': () =>
    chat('Hi', { tools: listOf(32, (at) => tool(at, objectOf(strings(32)))), max_tokens: 64 }),
  'a repeat of repeats': () =>
    held(objectOf({ a: { type: 'string', pattern: '(?:(?:a?){200}){200}' } })),
  'a schema of 150,000 fields': () => held(objectOf(strings(150_000))),
  'a schema of 300 fields, held': () =>
    held(objectOf(strings(300)), { max_tokens: 256, n: 8, temperature: 1 }),
  'an enum of 100,000 texts': () =>
    held(objectOf({ a: { enum: listOf(100_000, (at) => `word ${at * 7_919}`) } }), {
      max_tokens: 32,
      n: 8,
    }),
  '100 lengths, held': () =>
    held(
      objectOf(
        Object.fromEntries(listOf(100, (at) => [`p${at}`, { type: 'string', maxLength: at }])),
      ),
      { max_tokens: 256, n: 8 },
    ),
  '16 stop strings': () =>
    chat('Hi', { ...longAnswer, stop: listOf(16, (at) => `${'a'.repeat(250)}${at}`) }),
  '1024 biases': () =>
    chat('Hi', {
      ...longAnswer,
      logit_bias: Object.fromEntries(listOf(1_024, (at) => [String(at + 300), 1])),
      presence_penalty: 1,
    }),
  'eight long choices': () => chat('Hi', longAnswer),
  'eight long choices with log-probabilities': () =>
    chat('Hi', { ...longAnswer, logprobs: true, top_logprobs: 20 }),
  'eight long choices of a text, with log-probabilities': () =>
    text('Hi', { ...longAnswer, logprobs: 20 }),
  '64 prompts with log-probabilities': () =>
    text(
      listOf(64, (at) => `Prompt ${at}`),
      { max_tokens: 128, ignore_eos: true, logprobs: 20, n: 1 },
    ),
  'log-probabilities of a prompt': () =>
    text(
      listOf(390, (at) => 300 + at),
      { echo: true, logprobs: 20 },
    ),
  'echoes of 2 MB': () => text(' '.repeat(2 ** 18), { echo: true, n: 8 }),
  'Anthropic, a block of 8 MB': () =>
    anthropic([{ role: 'user', content: [{ type: 'text', text: repeated(words) }] }]),
  'Anthropic, 100,000 blocks': () =>
    anthropic([{ role: 'user', content: listOf(100_000, () => ({ type: 'text', text: words })) }]),
  'Anthropic, 4,000 messages of 20 blocks': () =>
    anthropic(
      listOf(4_000, (at) => ({
        role: at % 2 === 0 ? 'user' : 'assistant',
        content: listOf(20, () => ({ type: 'text', text: words })),
      })),
    ),
  'Anthropic, a long answer': () =>
    anthropic([{ role: 'user', content: 'Hi' }], { max_tokens: 8_192 }),
};
