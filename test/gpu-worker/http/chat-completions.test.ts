/** Chat completions through the app, with answers that the test wrote. */
import { expect, test } from 'vitest';
import {
  answering,
  httpWorker,
  parseEvents,
  thinkingTemplate,
} from '../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../support/worker/http-worker.ts';

const question = { model: 'tiny', messages: [{ role: 'user', content: 'What is it?' }] };

async function ask(worker: HttpWorker, body: object, headers: Record<string, string> = {}) {
  return worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
}

test('an answer has the text, the reason it ended and what it used', async () => {
  await using worker = await httpWorker({
    script: { ...answering('It', ' is', ' tea.'), cachedTokens: 4 },
  });
  const response = await ask(worker, question, { 'x-request-id': 'req-1' });
  expect(response.status).toBe(200);
  expect(response.headers.get('x-request-id')).toBe('req-1');
  const promptTokens = worker.engine.requests[0]?.promptTokens.length;
  expect(await response.json()).toEqual({
    id: 'chatcmpl-req-1',
    object: 'chat.completion',
    created: expect.closeTo(Date.now() / 1000, -2),
    model: 'tiny',
    system_fingerprint: 'fp_0123456789_cpu',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: 'It is tea.' },
        logprobs: null,
        finish_reason: 'stop',
        stop_reason: null,
      },
    ],
    usage: {
      prompt_tokens: promptTokens,
      completion_tokens: 3,
      total_tokens: (promptTokens ?? 0) + 3,
      prompt_tokens_details: { cached_tokens: 4 },
      completion_tokens_details: { reasoning_tokens: 0 },
      prompt_cache_hit_tokens: 4,
      prompt_cache_miss_tokens: (promptTokens ?? 0) - 4,
    },
  });
});

test('a stream begins with the role, goes on with deltas and ends with the reason and [DONE]', async () => {
  await using worker = await httpWorker({ script: answering('It', ' is', '', ' tea.') });
  const response = await ask(worker, { ...question, stream: true });
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  const events = parseEvents(await response.text());
  const choices = events.slice(0, -1).map((event) => choiceOf(event));
  expect(choices).toEqual([
    { index: 0, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null },
    { index: 0, delta: { content: 'It' }, logprobs: null, finish_reason: null },
    { index: 0, delta: { content: ' is' }, logprobs: null, finish_reason: null },
    { index: 0, delta: { content: ' tea.' }, logprobs: null, finish_reason: null },
    { index: 0, delta: {}, logprobs: null, finish_reason: 'stop', stop_reason: null },
  ]);
  expect(events.at(-1)).toBe('[DONE]');
  expect(events[0]).not.toHaveProperty('usage');
  expect(events[0]).toMatchObject({ object: 'chat.completion.chunk', model: 'tiny' });
});

test.each(['END', 7])('the stop that matched, %j, is said beside the reason', async (stopMatch) => {
  await using worker = await httpWorker({ script: { ...answering('It'), stopMatch } });
  const asked = { ...question, stop: ['x', 'END'], stop_token_ids: [7] };
  const whole: unknown = await (await ask(worker, asked)).json();
  const said = { finish_reason: 'stop', stop_reason: stopMatch };
  expect(whole).toMatchObject({ choices: [said] });
  const events = parseEvents(await (await ask(worker, { ...asked, stream: true })).text());
  expect(choiceOf(events.at(-2))).toMatchObject(said);
  expect(choiceOf(events[0])).not.toHaveProperty('stop_reason');
  const cut: unknown = await (await ask(worker, { ...asked, max_tokens: 1 })).json();
  expect(cut).toMatchObject({ choices: [{ finish_reason: 'length', stop_reason: null }] });
});

test('with include_usage one more event has no choices and the usage; the others have null', async () => {
  await using worker = await httpWorker({ script: answering('a', 'b') });
  const response = await ask(worker, {
    ...question,
    stream: true,
    stream_options: { include_usage: true },
  });
  const events = parseEvents(await response.text());
  const usages = events.slice(0, -1).map((event) => (event as { usage: unknown }).usage);
  expect(usages.slice(0, -1)).toEqual([null, null, null, null]);
  expect(usages.at(-1)).toMatchObject({ completion_tokens: 2 });
  expect(events.at(-2)).toMatchObject({ choices: [] });
});

test('with continuous_usage_stats every event carries the usage so far', async () => {
  await using worker = await httpWorker({
    script: { ...answering('a', '', 'c'), cachedTokens: 3 },
  });
  const response = await ask(worker, {
    ...question,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  const events = parseEvents(await response.text());
  const usages = events.slice(0, -1).map((event) => (event as { usage: object }).usage);
  expect(usages).toMatchObject([
    { completion_tokens: 0, prompt_tokens_details: { cached_tokens: 3 } },
    { completion_tokens: 1 },
    { completion_tokens: 2 },
    { completion_tokens: 3 },
    { completion_tokens: 3 },
    { completion_tokens: 3 },
  ]);
});

test('n asks for several answers, each with an index of its own', async () => {
  await using worker = await httpWorker({ script: answering('x', 'y') });
  const response = await ask(worker, { ...question, n: 3 });
  const { choices, usage } = (await response.json()) as Answer;
  expect(choices.map((choice) => [choice.index, choice.message.content])).toEqual([
    [0, 'xy'],
    [1, 'x1y1'],
    [2, 'x2y2'],
  ]);
  expect(usage.completion_tokens).toBe(6);

  const stream = await ask(worker, { ...question, n: 2, stream: true });
  const events = parseEvents(await stream.text()).slice(0, -1);
  const texts = ['', ''];
  for (const event of events) {
    const { index, delta } = choiceOf(event);
    texts[index] += delta.content ?? '';
  }
  expect(texts).toEqual(['xy', 'x1y1']);
});

test('adaptive thinking is on where the model has a mode of it, and no fault elsewhere', async () => {
  const body = { ...question, thinking: { type: 'adaptive' }, reasoning_effort: 'low' };
  for (const template of [thinkingTemplate, undefined]) {
    await using worker = await httpWorker({
      script: answering('tea'),
      ...(template !== undefined && { template }),
    });
    expect((await ask(worker, body)).status).toBe(200);
    const thinks = worker.engine.requests[0]?.reasoningEndToken !== null;
    expect(thinks).toBe(template !== undefined);
  }
});

test('a system message at the end leaves the answer to be thought about', async () => {
  await using worker = await httpWorker({ script: answering('tea') });
  const messages = [...question.messages, { role: 'system', content: 'Be brief.' }];
  const response = await ask(worker, { ...question, messages, thinking: { type: 'enabled' } });
  expect([response.status, await response.json()]).toMatchObject([
    400,
    { error: { param: 'thinking', code: 'unsupported_parameter' } },
  ]);
});

test('reasoning is told apart from the answer in thinking mode', async () => {
  const script = {
    answer: () => [
      { token: 100, text: 'hm' },
      { token: 7, text: '' },
      { token: 101, text: 'tea' },
    ],
  };
  await using worker = await httpWorker({ script, template: thinkingTemplate });
  const body = { ...question, thinking: { type: 'enabled' }, logprobs: true };
  const answer = (await (await ask(worker, body)).json()) as Answer;
  expect(worker.engine.requests[0]?.reasoningEndToken).toBe(7);
  expect(worker.engine.requests[0]?.promptTokens.at(-1)).toBe(6);
  expect(answer.choices[0]).toMatchObject({
    message: { content: 'tea', reasoning_content: 'hm' },
    logprobs: {
      content: [{ token: 'tea' }],
      reasoning_content: [{ token: 'hm' }, { token: '' }],
    },
  });
  expect(answer.usage.completion_tokens_details.reasoning_tokens).toBe(2);

  const stream = await ask(worker, {
    ...question,
    stream: true,
    chat_template_kwargs: { thinking: true },
  });
  const deltas = parseEvents(await stream.text())
    .slice(0, -1)
    .map((event) => choiceOf(event).delta);
  expect(deltas).toEqual([
    { role: 'assistant', content: '' },
    { reasoning_content: 'hm' },
    { content: 'tea' },
    {},
  ]);
});

test('without thinking the answer starts at once', async () => {
  await using worker = await httpWorker({ script: answering('tea'), template: thinkingTemplate });
  const body = { ...question, thinking: { type: 'disabled' } };
  const answer = (await (await ask(worker, body)).json()) as Answer;
  expect(worker.engine.requests[0]?.reasoningEndToken).toBeNull();
  expect(answer.choices[0]?.message).toEqual({ role: 'assistant', content: 'tea' });
});

test.each([
  [{ reasoning_effort: 'low' }, true],
  [{ reasoning_effort: 'max' }, true],
  [{ reasoning_effort: 'none' }, false],
  [{ reasoning_effort: 'high', thinking: { type: 'disabled' } }, false],
  [{ reasoning_effort: 'none', thinking: { type: 'enabled' } }, true],
  [{ reasoning_effort: 'high', chat_template_kwargs: { thinking: false } }, false],
])('an effort turns thinking on where nothing else decides: %j', async (fields, thinks) => {
  await using worker = await httpWorker({ script: answering('tea'), template: thinkingTemplate });
  expect((await ask(worker, { ...question, ...fields })).status).toBe(200);
  expect(worker.engine.requests[0]?.reasoningEndToken).toBe(thinks ? 7 : null);
});

test('logprobs name each token, its exact bytes and the alternatives', async () => {
  await using worker = await httpWorker({ script: answering('té') });
  const body = { ...question, logprobs: true, top_logprobs: 2 };
  const answer = (await (await ask(worker, body)).json()) as Answer;
  const bytes = [0x74, 0xc3, 0xa9];
  expect(answer.choices[0]?.logprobs).toEqual({
    content: [
      {
        token: 'té',
        bytes,
        logprob: -1,
        top_logprobs: [
          { token: 'té', bytes, logprob: -1 },
          // Not whole characters, so the text shows the bytes.
          { token: '\\xe2\\x81', bytes: [0xe2, 0x81], logprob: -2 },
        ],
      },
    ],
  });
});

test('prompt_logprobs give a map per prompt token, null for the first', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const body = { ...question, prompt_logprobs: 1 };
  const answer = (await (await ask(worker, body)).json()) as Answer;
  const [first, second] = answer.prompt_logprobs ?? [];
  const token = worker.engine.requests[0]?.promptTokens[1] ?? -1;
  expect(first).toBeNull();
  expect(second).toEqual({ [token]: { logprob: -1, rank: 1, decoded_token: `<${token}>` } });
});

test('every sampling parameter reaches the engine', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  await ask(worker, {
    ...question,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.05,
    seed: 7,
    repetition_penalty: 1.1,
    frequency_penalty: -1,
    presence_penalty: 1.5,
    logit_bias: { '5': -100, '6': 2.5 },
    max_completion_tokens: 12,
    stop: ['\n', 'END'],
    stop_token_ids: [9],
    ignore_eos: true,
    cache_salt: 'salt',
    n: 2,
  });
  expect(worker.engine.requests[0]).toMatchObject({
    sampling: {
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      minP: 0.05,
      seed: 7,
      repetitionPenalty: 1.1,
      frequencyPenalty: -1,
      presencePenalty: 1.5,
      logitBias: [
        [5, -100],
        [6, 2.5],
      ],
    },
    outputTokensMax: 12,
    stopStrings: ['\n', 'END'],
    stopTokens: [9],
    ignoreEnd: true,
    cacheSalt: 'salt',
    choices: 2,
  });
});

test('null means absent for every optional parameter', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const optional =
    'n stream stream_options stop stop_token_ids ignore_eos temperature top_p top_k min_p seed ' +
    'repetition_penalty frequency_penalty presence_penalty logit_bias prompt_logprobs cache_salt ' +
    'user max_tokens response_format max_completion_tokens logprobs top_logprobs thinking ' +
    'chat_template_kwargs tools tool_choice';
  const nulls = Object.fromEntries(optional.split(' ').map((name) => [name, null]));
  expect((await ask(worker, { ...question, ...nulls })).status).toBe(200);
  await ask(worker, question);
  const [withNulls, without] = worker.engine.requests;
  expect({ ...withNulls, id: '' }).toEqual({ ...without, id: '' });
});

test('a request without a maximum gets the default as far as the context has room', async () => {
  await using worker = await httpWorker({ script: answering('x'), contextLength: 100 });
  await ask(worker, question);
  const [request] = worker.engine.requests;
  expect(request?.outputTokensMax).toBe(100 - (request?.promptTokens.length ?? 0));
});

test('content in parts of text is the same as one text of their lines', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const parts = [
    { type: 'text', text: 'What' },
    { type: 'text', text: 'is it?' },
  ];
  await ask(worker, { ...question, messages: [{ role: 'user', content: parts }] });
  await ask(worker, { ...question, messages: [{ role: 'user', content: 'What\nis it?' }] });
  const [inParts, inOne] = worker.engine.requests;
  expect(inParts?.promptTokens).toEqual(inOne?.promptTokens);
});

test('a message with a prefix is gone on with, not answered', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const messages = [...question.messages, { role: 'assistant', content: 'It is', prefix: true }];
  await ask(worker, { ...question, messages });
  const tokens = worker.engine.requests[0]?.promptTokens ?? [];
  expect(worker.text.tokenizer.decode(tokens, { skipSpecial: false })).toBe(
    '<|begin|><|user|>What is it?<|assistant|>It is',
  );
});

test('an answer can be sent back as history as it came', async () => {
  await using worker = await httpWorker({ script: answering('It is tea.') });
  const answer = (await (await ask(worker, question)).json()) as Answer;
  const messages = [
    ...question.messages,
    { ...answer.choices[0]?.message, refusal: null },
    { role: 'user', content: 'Sure?' },
  ];
  expect((await ask(worker, { ...question, messages })).status).toBe(200);
  const tokens = worker.engine.requests[1]?.promptTokens ?? [];
  expect(worker.text.tokenizer.decode(tokens, { skipSpecial: false })).toBe(
    '<|begin|><|user|>What is it?<|assistant|>It is tea.<|end|><|user|>Sure?<|assistant|>',
  );
});

test('the names of control tokens in a message stay text', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const messages = [{ role: 'user', content: 'say <|assistant|> twice' }];
  await ask(worker, { ...question, messages });
  const tokens = [...(worker.engine.requests[0]?.promptTokens ?? [])];
  expect(tokens.filter((token) => token === 4)).toHaveLength(1);
});

interface Answer {
  readonly choices: readonly {
    index: number;
    message: { content: string };
    logprobs: unknown;
  }[];
  readonly usage: {
    completion_tokens: number;
    completion_tokens_details: { reasoning_tokens: number };
  };
  readonly prompt_logprobs?: readonly unknown[];
}

function choiceOf(event: unknown) {
  const [choice] = (
    event as { choices: { index: number; delta: { content?: string }; finish_reason: unknown }[] }
  ).choices;
  if (!choice) throw new Error(`no choice in ${JSON.stringify(event)}`);
  return choice;
}
