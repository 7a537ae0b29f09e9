/**
 * The hold against what a worker counts, over random requests of every route: the bounds come from
 * the edge's own reading of a request, the counts from the worker's real parsing, chat templates
 * and tokenizer. fast-check prints the seed of a failure.
 */
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { parseMessagesRequest } from '../../../edge/dialects/anthropic/requests.ts';
import type { InferenceRequest } from '../../../edge/dialects/inference-request.ts';
import { parseChatRequest, parseTextRequest } from '../../../edge/dialects/openai/requests.ts';
import { boundRequest, keptBody, workerBody } from '../../../edge/inference/prepared-request.ts';
import { prepareParsed } from '../../../edge/inference/prepare.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import { openToolModel } from '../../support/worker/tool-template.ts';

const contextLength = 65_536;
const { signal } = new AbortController();
const edge = await startHarness();
afterAll(() => edge.close());

async function startWorker(kind: 'own' | 'wordy' | 'deepseek') {
  const model = { id: testModel, ...(kind === 'own' ? {} : openToolModel(kind)) };
  const options = { contextLength, vocabSize: 5_000, waitingMax: 1_024 };
  const worker = await httpWorker({ script: answering('x'), model, ...options });
  afterAll(() => worker[Symbol.asyncDispose]());
  return worker;
}

const workers = {
  own: await startWorker('own'),
  wordy: await startWorker('wordy'),
  deepseek: await startWorker('deepseek'),
};
type Kind = keyof typeof workers;

/**
 * Compares the worker's count with what the edge holds for it; null if the worker refuses the
 * request.
 */
async function compare(kind: Kind, request: InferenceRequest) {
  const { cacheSecret } = edge.settings;
  const models = await edge.directory.models();
  const names = { models, aliases: [], passedOver: [] };
  const context = { tenant: 'acme', cacheSecret, ...names };
  const parts = prepareParsed(request, context);
  const body = keptBody(parts.body, () => {});
  const bounds = await boundRequest(edge.services, parts);
  const named = { tenant: 'acme', requestId: 'r', fairScope: 'f' };
  const prepared = { ...parts, ...bounds, ...named, body };
  const worker = workers[kind];
  worker.engine.requests.length = 0;
  const response = await worker.app.request(request.workerPath, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: await workerBody(edge.services, prepared, { isSift: true, signal }),
  });
  const text = await response.text();
  if (response.status !== 200) {
    expect(response.status, text).toBe(400);
    return null;
  }
  const { requests } = worker.engine;
  return {
    prompt: requests.reduce((sum, each) => sum + each.promptTokens.length, 0),
    output: requests.reduce((sum, each) => sum + each.choices * each.outputTokensMax, 0),
    promptMax: prepared.promptTokensMax,
    outputMax: prepared.outputTokensMax,
  };
}

async function expectBounded(kind: Kind, request: InferenceRequest): Promise<boolean> {
  const counts = await compare(kind, request);
  if (counts === null) return false;
  expect(counts.prompt).toBeGreaterThan(0);
  expect(counts.prompt).toBeLessThanOrEqual(counts.promptMax);
  expect(counts.output).toBeLessThanOrEqual(counts.outputMax);
  return true;
}

/** Texts that take many tokens, many bytes, many escapes, or look like what the template writes. */
const text = fc.oneof(
  fc.string({ maxLength: 60 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.nat().map((digits) => String(digits).repeat(5)),
  fc.constantFrom(
    '<think>',
    '</think>',
    '<|user|>',
    '\n\n',
    '"\\"',
    '日本語のテキスト',
    '👩‍👩‍👧',
    '\u0000\u0001',
  ),
  fc.constantFrom('<&>\'"', '\ue000\ufdd0', '{"a": [1, 2]}', ' '.repeat(50), '\ud800'),
);
const someText = text.filter((each) => each !== '');
const content = fc.oneof(
  text,
  fc.array(fc.record({ type: fc.constant('text'), text }), { minLength: 1, maxLength: 4 }),
);
const name = fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/);
const json = fc.jsonValue({ maxDepth: 5, stringUnit: 'grapheme' });
const jsonObject = fc.dictionary(text, json, { maxKeys: 8 });
const schema = jsonObject.map((properties) => ({ type: 'object', properties }));
const generation = {
  n: fc.option(fc.integer({ min: 1, max: 8 })),
  stop: fc.option(someText.map((each) => each.slice(0, 256))),
};
const stated = fc.option(fc.integer({ min: 1, max: 5_000 }));

const tool = fc.record({
  type: fc.constant('function'),
  function: fc.record(
    { name, description: fc.option(text), parameters: fc.option(schema) },
    { requiredKeys: ['name'] },
  ),
});
const call = fc.record({
  id: fc.constant('call_1'),
  type: fc.constant('function'),
  function: fc.record({
    name,
    arguments: fc.oneof(
      jsonObject.map((each) => JSON.stringify(each)),
      text,
    ),
  }),
});
const userTurn = fc.record({ role: fc.constant('user'), content });
const turns = fc.oneof(
  { weight: 2, arbitrary: userTurn.map((each) => [each]) },
  fc
    .record({ role: fc.constant('assistant'), content, reasoning_content: fc.option(text) })
    .map((each) => [each]),
  fc.tuple(fc.array(call, { minLength: 1, maxLength: 3 }), content).map(([tool_calls, result]) => [
    { role: 'assistant', content: null, tool_calls },
    { role: 'tool', tool_call_id: 'call_1', content: result },
  ]),
);
const format = fc.oneof(
  fc.constant({ type: 'text' }),
  fc.constant({ type: 'json_object' }),
  fc.array(fc.tuple(someText, text), { maxLength: 5 }).map((properties) => ({
    type: 'json_schema',
    json_schema: {
      name: 'answer',
      schema: {
        type: 'object',
        properties: Object.fromEntries(
          properties.map(([key, description]) => [key, { type: 'integer', description }]),
        ),
      },
    },
  })),
);

const chat = fc
  .record(
    {
      system: fc.option(fc.record({ role: fc.constantFrom('system', 'developer'), content })),
      history: fc.array(turns, { maxLength: 6 }),
      last: userTurn,
      tools: fc.option(fc.array(tool, { minLength: 1, maxLength: 6 })),
      thinking: fc.option(fc.record({ type: fc.constantFrom('enabled', 'disabled') })),
      response_format: fc.option(format),
      max_tokens: stated,
      ...generation,
    },
    { requiredKeys: ['system', 'history', 'last'] },
  )
  .map(({ system, history, last, ...fields }) => ({
    model: testModel,
    messages: [...(system ? [system] : []), userStart, ...history.flat(), last],
    ...fields,
  }));
/** The tiny model's own template wants a user's turn first. */
const userStart = { role: 'user', content: 'Hi' };

const tokenIds = fc.array(fc.integer({ min: 0, max: 4_000 }), { minLength: 1, maxLength: 40 });
const completion = fc.record(
  {
    model: fc.constant(testModel),
    prompt: fc.oneof(
      someText,
      fc.array(someText, { minLength: 1, maxLength: 64 }),
      tokenIds,
      fc.array(tokenIds, { minLength: 1, maxLength: 64 }),
    ),
    suffix: fc.option(text.map((each) => each.repeat(10))),
    echo: fc.option(fc.boolean()),
    max_tokens: fc.option(fc.integer({ min: 0, max: 5_000 })),
    logprobs: fc.option(fc.integer({ min: 0, max: 3 })),
    ...generation,
  },
  { requiredKeys: ['model', 'prompt'] },
);

const blocks = fc.array(fc.record({ type: fc.constant('text'), text }), {
  minLength: 1,
  maxLength: 3,
});
const toolUse = fc
  .tuple(name, jsonObject, text, fc.boolean())
  .map(([tool_name, input, result, failed]) => [
    { role: 'assistant', content: [{ type: 'tool_use', id: 'u1', name: tool_name, input }] },
    {
      role: 'user',
      content: [{ type: 'tool_result', tool_use_id: 'u1', content: result, is_error: failed }],
    },
  ]);
const message = fc
  .record(
    {
      system: fc.option(fc.oneof(text, blocks)),
      history: fc.array(
        fc.oneof(
          toolUse,
          fc
            .record({ role: fc.constant('user'), content: fc.oneof(text, blocks) })
            .map((each) => [each]),
          fc.tuple(text, text).map(([thinking, said]) => [
            {
              role: 'assistant',
              content: [
                { type: 'thinking', thinking, signature: 's' },
                { type: 'text', text: said },
              ],
            },
          ]),
        ),
        { maxLength: 6 },
      ),
      tools: fc.option(
        fc.array(fc.record({ name, description: fc.option(text), input_schema: schema }), {
          maxLength: 5,
        }),
      ),
      thinking: fc.option(
        fc.constantFrom({ type: 'enabled', budget_tokens: 1_024 }, { type: 'disabled' }),
      ),
      max_tokens: fc.integer({ min: 1, max: 5_000 }),
    },
    { requiredKeys: ['history', 'max_tokens'] },
  )
  .map(({ history, ...fields }) => ({
    model: testModel,
    messages: [userStart, ...history.flat(), userStart],
    ...fields,
  }));

const routes = [
  { route: 'chat', body: chat, parse: parseChatRequest },
  { route: 'completions', body: completion, parse: parseTextRequest },
  { route: 'messages', body: message, parse: parseMessagesRequest },
] as const;
const cases = routes.flatMap((each) =>
  (['own', 'wordy', 'deepseek'] as const).map((kind) => ({ ...each, kind })),
);

test.each(cases)(
  'no request of $route counts more than its hold, with the chat format $kind',
  async ({ body, parse, kind }) => {
    let answered = 0;
    const property = fc.asyncProperty(fc.oneof(body), async (value) => {
      // The body as it comes over the wire.
      const request = parse(JSON.parse(JSON.stringify(value)));
      if (await expectBounded(kind, request)) answered++;
    });
    await fc.assert(property, { numRuns: 150 });
    expect(answered).toBeGreaterThan(kind === 'own' ? 5 : 60);
  },
);

test.each([1, 4, 32, 64])('a suffix is held for once per prompt (%i prompts)', async (prompts) => {
  const prompt = Array.from({ length: prompts }, (_, index) => `${index}`);
  const body = { model: testModel, prompt, suffix: '0123456789'.repeat(77), n: 8, max_tokens: 5 };
  const counts = await compare('deepseek', parseTextRequest(body));
  expect(counts?.prompt).toBeGreaterThan(prompts * 770);
  expect(counts?.prompt).toBeLessThanOrEqual(counts?.promptMax ?? 0);
  expect(counts?.outputMax).toBe(prompts * 8 * 5);
});

test('a schema that a template indents is held for at the length that it is written', async () => {
  const deep = (levels: number): object =>
    levels === 0 ? { type: 'string' } : { type: 'object', properties: { 0: deep(levels - 1) } };
  const tools = Array.from({ length: 20 }, (_, index) => ({
    type: 'function',
    function: { name: `f${index}`, parameters: deep(20) },
  }));
  const messages = [userStart];
  const request = parseChatRequest({ model: testModel, messages, tools });
  expect(await expectBounded('wordy', request)).toBe(true);
});
