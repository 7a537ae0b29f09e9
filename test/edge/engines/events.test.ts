/** The events of engines, one oddity after the other, and what becomes of them. */
import { expect, test } from 'vitest';
import { createEventReader } from '../../../edge/engines/events.ts';
import type { DialectOptions } from '../../../edge/engines/events.ts';

const options: DialectOptions = {
  kind: 'chat',
  requestId: 'r-1',
  stops: { strings: ['END'], tokens: [7] },
  answers: 1,
  reportsCachedTokens: true,
  secrets: [],
};

function readAll(events: readonly unknown[], more: Partial<DialectOptions> = {}) {
  const reader = createEventReader({ ...options, ...more });
  return events.map((event) =>
    reader.read({ data: typeof event === 'string' ? event : JSON.stringify(event) }),
  );
}

/** The choices that come of these, all in one list. */
function choicesOf(choices: readonly unknown[], more: Partial<DialectOptions> = {}) {
  const events = choices.map((choice) => ({ id: 'x', choices: [choice] }));
  return readAll(events, more).flatMap((event) =>
    event.kind === 'chunk' ? event.chunk.choices : [],
  );
}

const deltasOf = (...deltas: unknown[]) =>
  choicesOf(deltas.map((delta) => ({ index: 0, delta }))).map(({ delta }) => delta);

test('reasoning is reasoning_content by either name, once', () => {
  const reasoning = { role: 'assistant', reasoning_content: 'hm' };
  expect(deltasOf({ reasoning: 'hm' })).toEqual([reasoning]);
  expect(deltasOf({ reasoning_content: 'hm' })).toEqual([reasoning]);
  expect(deltasOf({ reasoning: 'hm', reasoning_content: 'hm' })).toEqual([reasoning]);
  expect(deltasOf({ reasoning: 'hm', reasoning_content: '', content: '' })).toEqual([reasoning]);
  expect(deltasOf({ reasoning: 'hm', reasoning_content: null, content: null })).toEqual([
    reasoning,
  ]);
});

test('the role comes once, and empty pieces do not come', () => {
  expect(
    deltasOf(
      { role: 'assistant', content: '' },
      { role: 'assistant', content: 'a', tool_calls: [] },
      { role: null, content: '', reasoning_content: '' },
      { content: null },
      null,
      undefined,
      { role: '', content: 'b' },
    ),
  ).toEqual([{ role: 'assistant', content: '' }, { content: 'a' }, { content: 'b' }]);
  expect(deltasOf({ content: 'a' })).toEqual([{ role: 'assistant', content: 'a' }]);
});

/** Each call's id, name and whole arguments, as a client puts them together. */
function callsOf(...pieces: unknown[][]) {
  const calls: { id: string; name: string; arguments: string }[] = [];
  const choices = choicesOf([
    ...pieces.map((each) => ({ index: 0, delta: { tool_calls: each } })),
    { index: 0, delta: {}, finish_reason: 'stop' },
  ]);
  for (const piece of choices.flatMap(({ delta }) => delta?.tool_calls ?? [])) {
    const call = (calls[piece.index] ??= { id: '', name: '', arguments: '' });
    call.id += piece.id ?? '';
    call.name += piece.function.name ?? '';
    call.arguments += piece.function.arguments;
  }
  expect(choices.at(-1)?.finish_reason).toBe('tool_calls');
  return calls;
}

test('a stop string that matched within a call leaves it unfinished', () => {
  const begun = { index: 0, delta: { tool_calls: [header] } };
  const stopped = { index: 0, delta: {}, finish_reason: 'stop', stop_reason: 'END' };
  expect(choicesOf([begun, stopped]).at(-1)).toMatchObject({
    finish_reason: 'stop',
    stop_reason: 'END',
  });
});

const f = { id: 'a', name: 'f', arguments: '{"x":1}' };
const g = { id: 'b', name: 'g', arguments: '{}' };
const header = { index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '' } };

test('a tool call is put together from whatever pieces an engine makes', () => {
  const tail = (more: object, json: string | null) => ({
    index: 0,
    function: { arguments: json, ...more },
  });
  const plain = [[header], [tail({}, '{"x"')], [tail({}, ':1}')]];
  const repeated = plain.map(([piece]) => [
    { ...piece, id: 'a', type: 'function', function: { ...piece?.function, name: 'f' } },
  ]);
  const newIds = plain.map(([piece], at) => [{ ...piece, id: at === 0 ? 'a' : `n${at}` }]);
  const newIdsNamed = repeated.map(([piece], at) => [{ ...piece, id: at === 0 ? 'a' : `n${at}` }]);
  const empty = [
    [header],
    [{ ...tail({ name: '' }, '{"x":1}'), id: '' }],
    [{ ...tail({ name: null }, null), id: null }],
  ];
  const noIndex = plain.map(([piece]) => [{ ...piece, index: null }]);
  const whole = [[{ id: 'a', function: { name: 'f', arguments: { x: 1 } } }]];
  const lateName = [
    [{ index: 0, id: 'a', function: { arguments: '{"x"' } }],
    [tail({ name: 'f' }, ':1}')],
  ];
  for (const pieces of [plain, repeated, newIds, newIdsNamed, empty, noIndex, whole, lateName]) {
    expect(callsOf(...pieces)).toEqual([f]);
  }
});

test('several calls are kept apart, in one event or in many', () => {
  const first = { id: 'a', function: { name: 'f', arguments: '{"x":1}' } };
  const second = { id: 'b', function: { name: 'g', arguments: '{}' } };
  expect(
    callsOf([
      { index: 0, ...first },
      { index: 1, ...second },
    ]),
  ).toEqual([f, g]);
  expect(callsOf([first, second])).toEqual([f, g]);
  expect(callsOf([first], [second])).toEqual([f, g]);
  expect(callsOf([{ index: 0, ...first }], [{ index: 0, ...second }])).toEqual([f, g]);
  // The same function twice, under one index.
  const again = { index: 0, id: 'b', function: { name: 'f', arguments: '{"x":1}' } };
  expect(callsOf([{ index: 0, ...first }], [again])).toEqual([f, { ...f, id: 'b' }]);
  // Their pieces interleaved, and the first index not 0.
  expect(
    callsOf(
      [{ index: 1, id: 'a', function: { name: 'f', arguments: '' } }],
      [{ index: 2, ...second }],
      [{ index: 1, function: { arguments: '{"x":1}' } }],
    ),
  ).toEqual([f, g]);
});

test('a call without an id gets one, that Anthropic clients accept too', () => {
  const named = (json: string) => [{ index: 0, function: { name: 'f', arguments: json } }];
  const [call, ...others] = callsOf(named('{"x"'), named(':1}'));
  expect(others).toEqual([]);
  expect(call).toMatchObject({ name: 'f', arguments: '{"x":1}' });
  expect(call?.id).toMatch(/^[A-Za-z0-9_-]{5,}$/);
});

test("OpenAI's older function_call is a tool call", () => {
  const choices = choicesOf([
    { index: 0, delta: { function_call: { name: 'f', arguments: '{}' } } },
    { index: 0, delta: {}, finish_reason: 'function_call' },
  ]);
  expect(choices[0]?.delta?.tool_calls).toMatchObject([{ function: { name: 'f' } }]);
  expect(choices[1]?.finish_reason).toBe('tool_calls');
});

test.each([
  ['stop', 'stop'],
  ['eos', 'stop'],
  ['', null],
  [null, null],
  ['length', 'length'],
  ['limit', 'length'],
  ['tool_calls', 'tool_calls'],
  ['function_call', 'tool_calls'],
  ['content_filter', 'content_filter'],
])('the reason %j is %j', (said, ours) => {
  const [choice] = choicesOf([{ index: 0, delta: { content: 'x' }, finish_reason: said }]);
  expect(choice?.finish_reason).toBe(ours);
});

test.each(['abort', 'error', 'cancelled', 'timeout'])(
  'an answer that ends with %j was given up by its engine',
  (said) => {
    const [event] = readAll([{ choices: [{ index: 0, delta: {}, finish_reason: said }] }]);
    expect(event).toMatchObject({ kind: 'failed' });
  },
);

test.each([
  [{ stop_reason: 'END' }, 'END'],
  [{ matched_stop: 'END' }, 'END'],
  [{ matched_stop: ['END'] }, 'END'],
  [{ stop_type: 'word', stopping_word: 'END' }, 'END'],
  [{ stop_reason: 7 }, 7],
  [{ matched_stop: 7 }, 7],
  // The end of the turn, which no client asked for.
  [{ matched_stop: 151_645 }, undefined],
  [{ matched_stop: '<|im_end|>' }, undefined],
  [{ stop_reason: null, matched_stop: null, stopping_word: '' }, undefined],
  [{}, undefined],
])('of %j the stop that matched is %j', (said, stop) => {
  for (const kind of ['chat', 'text'] as const) {
    const [choice] = choicesOf(
      [{ index: 0, delta: { content: 'x' }, text: 'x', finish_reason: 'stop', ...said }],
      { kind },
    );
    expect(choice?.stop_reason).toBe(stop);
  }
});

test('logprobs of reasoning are not those of the content', () => {
  const content = [{ token: 'hm', logprob: -1 }];
  const [thought] = choicesOf([{ index: 0, delta: { reasoning: 'hm' }, logprobs: { content } }]);
  expect(thought?.logprobs).toEqual({ content: null, reasoning_content: content });
  const [said] = choicesOf([{ index: 0, delta: { content: 'hm' }, logprobs: { content } }]);
  expect(said?.logprobs).toEqual({ content });
});

test('what an engine adds for itself is not passed on', () => {
  const choice = {
    index: 0,
    delta: { content: 'x', extra: 1 },
    token_ids: [1],
    hidden_states: null,
  };
  const [event] = readAll([
    {
      id: 'x',
      object: 'chat.completion.chunk',
      created: 1,
      choices: [choice],
      timings: {},
      __verbose: { prompt: 'p' },
    },
  ]);
  expect(event).toEqual({
    kind: 'chunk',
    chunk: {
      object: 'chat.completion.chunk',
      created: 1,
      choices: [
        {
          index: 0,
          delta: { role: 'assistant', content: 'x' },
          logprobs: null,
          finish_reason: null,
        },
      ],
    },
    usage: null,
  });
});

test('events without choices carry nothing but their count', () => {
  const usage = { prompt_tokens: 3, completion_tokens: 1 };
  for (const choices of [[], null, undefined]) {
    const [event] = readAll([{ id: 'x', choices, usage }]);
    expect(event).toMatchObject({
      kind: 'chunk',
      chunk: { choices: [] },
      usage: { outputText: 1 },
    });
  }
});

test('cached tokens that one event states stand for those that do not', () => {
  const usage = { prompt_tokens: 128, completion_tokens: 1 };
  const cachedIn = (...events: object[]) =>
    readAll(events.map((more) => ({ choices: [], usage: { ...usage, ...more } }))).map((event) =>
      event.kind === 'chunk' ? event.usage?.inputCached : undefined,
    );
  const stated = { prompt_tokens_details: { cached_tokens: 64 } };
  expect(cachedIn({}, stated, { prompt_tokens_details: null }, {})).toEqual([null, 64, 64, 64]);
  expect(cachedIn({ prompt_tokens_details: { cached_tokens: 0 } }, {})).toEqual([0, 0]);
  expect(cachedIn({ prompt_tokens_details: null })).toEqual([null]);
});

test('garbage among choices is passed over, and never thrown', () => {
  const [event] = readAll([
    { choices: [null, 5, { index: -1 }, { index: 1e9 }, 'x', { delta: 3 }] },
  ]);
  expect(event).toMatchObject({ kind: 'chunk', chunk: { choices: [] } });
});

test('an error is one under the name of the event, too', () => {
  const reader = createEventReader(options);
  const read = (data: string) => reader.read({ name: 'error', data });
  expect(read('it broke')).toEqual({ kind: 'failed', reason: 'it said: it broke' });
  expect(read('{"odd": 1}')).toMatchObject({ kind: 'failed' });
  expect(read('{"code": 400, "message": "no", "type": "invalid_request_error"}')).toMatchObject({
    kind: 'rejected',
    error: { message: 'no' },
  });
});

test('a stream is whole without [DONE] once all answers ended and were counted', () => {
  const wholeAfter = (events: readonly unknown[], answers = 1) => {
    const reader = createEventReader({ ...options, answers });
    for (const event of events) reader.read({ data: JSON.stringify(event) });
    return reader.isWhole();
  };
  const usage = { prompt_tokens: 1, completion_tokens: 1 };
  const finish = (index: number) => ({ choices: [{ index, delta: {}, finish_reason: 'stop' }] });
  const open = { choices: [{ index: 1, delta: { content: 'x' } }] };
  expect(wholeAfter([finish(0), { choices: [], usage }])).toBe(true);
  expect(wholeAfter([{ ...finish(0), usage }])).toBe(true);
  expect(wholeAfter([finish(0)])).toBe(false);
  expect(wholeAfter([{ ...open, usage }])).toBe(false);
  expect(wholeAfter([{ ...finish(0), usage }], 2)).toBe(false);
  expect(wholeAfter([{ ...finish(0), usage }, open], 2)).toBe(false);
});
