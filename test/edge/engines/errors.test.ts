/** Errors in the words of each engine, from its public sources and from reports of its users. */
import { expect, test } from 'vitest';
import { cleanMessage, secretsOf } from '../../../edge/engines/error-message.ts';
import { readError } from '../../../edge/engines/errors.ts';

const read = (json: unknown, status: number | null = 400) =>
  readError(json, { status, secrets: [] });
const flat = (message: string, code: number | string = 400) => ({
  object: 'error',
  message,
  type: 'BadRequestError',
  param: null,
  code,
});

const overflows = [
  // vLLM, older and newer.
  "This model's maximum context length is 8192 tokens. However, you requested 8300 tokens (8100 in the messages, 200 in the completion). Please reduce the length of the messages or completion.",
  "This model's maximum context length is 8192 tokens. However, your request has 9000 input tokens. Please reduce the length of the input messages.",
  "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has 20 input tokens (5000 > 4096 - 20).",
  "You passed 8193 input tokens and requested 16 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 8176 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=8193)",
  'The decoder prompt (length 9000) is longer than the maximum model length of 8192. Make sure that `max_model_len` is no smaller than the number of text tokens.',
  'max_tokens must be at least 1, got -186.',
  // SGLang.
  "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
  "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens: 4000 tokens from the input messages and 1000 tokens for the completion.",
  'Input length (5000 tokens) exceeds the maximum allowed length (4091 tokens). Use a shorter input or enable --allow-auto-truncate.',
  // TensorRT-LLM.
  'The sum of prompt length (4000.0) and query length (0) max_tokens (2048) should not exceed max_seq_len (4096)',
  'The sum of prompt length (9000.0), query length (0) should not exceed max_num_tokens (8192)',
  'Prompt length (200) exceeds maximum input length (128).',
  '`default_max_tokens` (-5) should be greater than 0, `default_max_tokens` = max_seq_len (4096) - prompt_len (4101)',
  // llama.cpp.
  'the request exceeds the available context size. try increasing the context size or enable context shift',
  'request (1407 tokens) exceeds the available context size (256 tokens), try increasing it',
  'Context size has been exceeded.',
  'Illegal param: prefill 744 tokens exceed n_ctx_per_seq, try increasing total context size',
];

test.each(overflows)('an overflow keeps its words under our code: %s', (message) => {
  for (const json of [{ error: flat(message) }, flat(message)]) {
    for (const status of [400, null]) {
      const said = read(json, status);
      expect(said).toMatchObject({
        kind: 'rejected',
        error: { code: 'context_length_exceeded', status: 400, message },
      });
    }
  }
});

/** Prompt, output and context tokens; overflows that are not named here tell too few of them. */
const numbers: Readonly<Record<number, readonly (number | null)[]>> = {
  0: [8100, 200, 8192],
  1: [9000, null, 8192],
  2: [20, 5000, 4096],
  3: [8193, 16, 8192],
  4: [9000, null, 8192],
  6: [61_709, null, 40_960],
  7: [4000, 1000, 4096],
  8: [5000, null, 4091],
  9: [4000, 2048, 4096],
  10: [9000, null, 8192],
  11: [200, null, 128],
  14: [1407, null, 256],
};

test.each(overflows.entries().toArray())('the numbers of overflow %i are read', (at, message) => {
  const said = read({ error: flat(message) });
  const [promptTokens, outputTokens, contextTokens] = numbers[at] ?? [];
  expect(said?.kind === 'rejected' ? said.error.overflow : undefined).toEqual(
    numbers[at] ? { promptTokens, outputTokens, contextTokens } : null,
  );
});

test('llama.cpp gives an overflow its own type, under any status, and the numbers beside it', () => {
  const error = {
    code: 500,
    message: 'the request exceeds the available context size',
    type: 'exceed_context_size_error',
    n_prompt_tokens: 1_407,
    n_ctx: 256,
  };
  for (const status of [400, 500, null]) {
    expect(read({ error }, status)).toMatchObject({
      error: {
        code: 'context_length_exceeded',
        message: expect.stringMatching(/1407.*256/),
        overflow: { promptTokens: 1407, outputTokens: null, contextTokens: 256 },
      },
    });
  }
});

test.each([
  ['nested, its code a number', { error: flat('top_k must be at least -1, got -5.') }],
  ['nested, its code a string', { error: flat('top_k must be at least -1, got -5.', '400') }],
  ['flat', flat('top_k must be at least -1, got -5.')],
  ['flat, with no type', { message: 'top_k must be at least -1, got -5.', code: 400 }],
  ['text alone', { error: 'top_k must be at least -1, got -5.' }],
])('a fault of the request (%s) keeps its words', (_, json) => {
  expect(read(json)).toMatchObject({
    kind: 'rejected',
    error: { code: 'invalid_request', message: 'top_k must be at least -1, got -5.' },
  });
});

test("FastAPI's list of faults becomes one sentence", () => {
  const detail = [{ type: 'missing', loc: ['body', 'messages'], msg: 'Field required', input: {} }];
  expect(read({ detail }, 422)).toMatchObject({
    error: { code: 'invalid_value', message: 'body: messages: Field required' },
  });
});

test("FastAPI's own sentence keeps its words, whatever it is about", () => {
  expect(read({ detail: 'Adapters are not loaded.' })).toMatchObject({
    error: { code: 'invalid_request', message: 'Adapters are not loaded.' },
  });
  const [overflow] = overflows;
  expect(read({ detail: overflow })).toMatchObject({
    error: { code: 'context_length_exceeded', message: overflow },
  });
  expect(read({ detail: 'Not Found' }, 404)).toMatchObject({ kind: 'lacking' });
  expect(read({ detail: 'worker lost' }, 500)).toMatchObject({ kind: 'failed' });
});

test('a model that the engine lacks may be had elsewhere', () => {
  const json = { error: { ...flat('The model `x` does not exist.', 404), type: 'NotFoundError' } };
  expect(read(json, 404)).toMatchObject({
    kind: 'lacking',
    error: { code: 'model_not_found', message: 'The model `x` does not exist.' },
  });
});

test.each([
  ['an engine that failed', flat('CUDA out of memory', 500), 500],
  ['a full engine', flat('queue is full', 429), null],
  [
    'an error of our own worker',
    { error: { message: 'm', type: 'server_error', code: null } },
    null,
  ],
  ['an engine that is starting', { error: { message: 'Loading model', code: 503 } }, null],
])('the request is not at fault for %s', (_, json, status) => {
  expect(read(json, status)?.kind).toBe('failed');
});

test.each([null, 5, 'text', [], {}, { id: 'x', choices: [] }, { error: null }, { error: {} }])(
  '%j is no error',
  (json) => {
    expect(read(json)).toBeNull();
  },
);

test.each([
  ['see https://errors.pydantic.dev/2.11/v/missing for more', 'see [removed] for more'],
  ['cannot reach 10.0.0.7:8000 or db.internal:5432', 'cannot reach [removed] or [removed]'],
  ['no file /srv/models/secret/config.json here', 'no file [removed] here'],
  ['C:\\models\\a.gguf is missing', '[removed] is missing'],
  ['token sk-abcdefgh12345678 is wrong', 'token [removed] is wrong'],
  ['Authorization: Bearer abc.def is wrong', 'Authorization: [removed] is wrong'],
  [`cache_salt ${'ab'.repeat(32)} is odd`, 'cache_salt [removed] is odd'],
  ['bad\nTraceback (most recent call last):\n  File "/a/b.py", line 3', 'bad'],
  ['key worker-token and host engine.example:8000', 'key [removed] and host [removed]'],
  ['max_tokens:8192 and/or top_k (5000 > 4096 - 20)', null],
  ["messages[0].content/0 and 'tools[1].function.name' are wrong", null],
])('a client is shown of %j what is the operator’s no business of hiding', (message, shown) => {
  const secrets = secretsOf('http://engine.example:8000', 'worker-token');
  expect(cleanMessage(message, secrets)).toBe(shown ?? message);
});

test('a message is one line of bounded length', () => {
  const message = cleanMessage(`a\n\u0000${'z'.repeat(5_000)}`);
  expect(message).toMatch(/^a z+…$/);
  expect(message).toHaveLength(1_000);
});
