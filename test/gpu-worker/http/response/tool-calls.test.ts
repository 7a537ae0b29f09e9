/**
 * Tool calls: the parser on every way to cut its input, and the route with DeepSeek's own template.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addToCalls } from '../../../../gpu-worker/chat-formats/call-parser.ts';
import type { ToolOutput } from '../../../../gpu-worker/chat-formats/call-parser.ts';
import { DeepseekV31Parser } from '../../../../gpu-worker/chat-formats/deepseek-v31-calls.ts';
import type { ToolCall } from '../../../../gpu-worker/protocol/messages.ts';
import type {
  ChatCompletion,
  ChatCompletionChunk,
} from '../../../../gpu-worker/protocol/responses.ts';
import { openChatFormat } from '../../../../gpu-worker/chat-formats/chat-formats.ts';
import { answering, httpWorker, parseEvents } from '../../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../../support/worker/http-worker.ts';
import { formatModel } from '../../../support/worker/format-models.ts';
import { deepseek, deepseekFiles } from '../../tokenizer/fixture.ts';

const begin = '<｜tool▁calls▁begin｜>';
const end = '<｜tool▁calls▁end｜>';
const call = (name: string, json: string) =>
  `<｜tool▁call▁begin｜>${name}<｜tool▁sep｜>${json}<｜tool▁call▁end｜>`;

function parsePieces(
  pieces: readonly string[],
  { isCut = false, toolNames = ['look', 'f'], isFenced = false } = {},
): { text: string; calls: ToolCall[] } {
  const parser = new DeepseekV31Parser('call-x', { toolNames, isFenced });
  let text = '';
  const calls: ToolCall[] = [];
  const take = (output: ToolOutput): void => {
    text += output.text;
    addToCalls(calls, output.calls);
  };
  for (const piece of pieces) take(parser.push(piece));
  take(parser.flush(isCut ? 'cut' : 'complete'));
  return { text, calls };
}

describe('the parser', () => {
  test('takes calls out of the text and numbers them', () => {
    const written = `Let me look.${begin}${call('f', '{"a":1}')}${call('g', '{}')}${end}`;
    expect(parsePieces([written])).toEqual({
      text: 'Let me look.',
      calls: [
        { id: 'call-x-0', type: 'function', function: { name: 'f', arguments: '{"a":1}' } },
        { id: 'call-x-1', type: 'function', function: { name: 'g', arguments: '{}' } },
      ],
    });
  });

  test('reads the fenced form of the first V3 models', () => {
    const written = `${begin}${call('function', 'look\n```json\n{"city":"Bergen"}\n```')}\n${end}`;
    expect(parsePieces([written]).calls[0]?.function).toEqual({
      name: 'look',
      arguments: '{"city":"Bergen"}',
    });
  });

  test('leaves text without calls as it is, also if it looks like one for a while', () => {
    for (const text of ['', 'plain', 'a < b', '<｜tool▁calls', '<<｜']) {
      expect(parsePieces([...text])).toEqual({ text, calls: [] });
    }
  });

  test('gives as text, without marks, what is no call', () => {
    const none = `<｜tool▁call▁begin｜>f<｜tool▁call▁end｜>`;
    expect(parsePieces([`${begin}${none}${end}.`])).toEqual({ text: 'f.', calls: [] });
    expect(parsePieces([`${begin}${call('', '{"a":1}')}${end}.`])).toEqual({
      text: '{"a":1}.',
      calls: [],
    });
    expect(parsePieces([`${begin}nothing to call`])).toEqual({
      text: 'nothing to call',
      calls: [],
    });
    expect(parsePieces(['a<｜tool▁sep｜>b<｜tool▁call▁end｜>c'])).toEqual({
      text: 'abc',
      calls: [],
    });
  });

  test('takes for a call what lacks one of the outer marks', () => {
    const expected = [{ name: 'f', arguments: '{"a":1}' }];
    for (const written of [
      call('f', '{"a":1}') + end,
      `${begin}f<｜tool▁sep｜>{"a":1}${end}`,
      `${begin}<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":1}`,
    ]) {
      const { text, calls } = parsePieces([...written]);
      expect([text, calls.map((each) => each.function)]).toEqual(['', expected]);
    }
  });

  test('gives arguments that are no JSON as they were written', () => {
    const { calls } = parsePieces([`${begin}${call('f', 'city: Bergen')}${end}`]);
    expect(calls[0]?.function).toEqual({ name: 'f', arguments: 'city: Bergen' });
  });

  test('gives arguments in pieces, as they come', () => {
    const json = JSON.stringify({
      text: 'a "quoted" < b, ```code```, \n 日本語  😀 ',
      more: [1, {}],
    });
    for (const written of [
      call('look', ` ${json}\n`),
      call('function', `look\n\`\`\`json\n${json}\n\`\`\``),
    ]) {
      const parser = new DeepseekV31Parser('call-x', { toolNames: [], isFenced: false });
      parser.push(begin);
      const deltas = [...written].flatMap((piece) => parser.push(piece).calls);
      expect(deltas[0]).toEqual({
        index: 0,
        id: 'call-x-0',
        type: 'function',
        function: { name: 'look', arguments: expect.any(String) },
      });
      const others = deltas.slice(1);
      expect(others.length).toBeGreaterThan(40);
      for (const delta of others) {
        expect(delta).toEqual({ index: 0, function: { arguments: expect.stringMatching(/./su) } });
      }
      expect(deltas.map((delta) => delta.function.arguments).join('')).toBe(json);
    }
  });
});

describe('the parser of an output that is cut', () => {
  const json = '{"city":"Ber\\u0067en <1> 日","days":[1, 2]}';
  const forms = {
    'of V3.1': `${call('look', json)}${call('f', '{}')}`,
    'of V3': [
      call('function', `look\n\`\`\`json\n${json}\n\`\`\``),
      call('function', 'f\n```json\n{}\n```'),
    ].join('\n'),
  };

  test.each(Object.entries(forms))('never shows a mark, in the form %s', (form, written) => {
    const isFenced = form === 'of V3';
    const whole = `Hm.${begin}${written}${end}`;
    const characters = [...whole];
    const nameAt = whole.indexOf('look') + 'look'.length;
    const jsonAt = whole.indexOf(json);
    let before = '';
    for (let at = 0; at <= characters.length; at++) {
      const cut = characters.slice(0, at).join('');
      const { text, calls } = parsePieces(characters.slice(0, at), {
        isCut: true,
        isFenced,
      });
      // A lone < is text until more of a mark follows.
      expect('Hm.'.startsWith(text.replace(/<$/, '')), cut).toBe(true);
      expect(text.endsWith('<'), cut).toBe(cut === 'Hm.<');
      expect(calls.length > 0, cut).toBe(at >= nameAt - 'look'.length + 1);
      const [first, second] = calls.map((each) => each.function);
      if (first) {
        expect(first.name, cut).toBe('look');
        const parts = at - jsonAt;
        const expected = parts > 0 ? json.slice(0, parts) : '';
        expect(first.arguments, cut).toBe(isOutsideString(expected) ? expected.trim() : expected);
        expect(first.arguments.startsWith(before), cut).toBe(true);
        before = first.arguments;
      }
      if (second) expect(['', '{', '{}'], cut).toContain(second.arguments);
    }
  });

  test('tells a name that was cut if one tool alone can be meant', () => {
    const cutName = (name: string, toolNames: string[]) =>
      parsePieces([`${begin}<｜tool▁call▁begin｜>${name}`], { isCut: true, toolNames }).calls.map(
        (each) => each.function,
      );
    expect(cutName('lo', ['look', 'f'])).toEqual([{ name: 'look', arguments: '' }]);
    expect(cutName('', ['look'])).toEqual([{ name: 'look', arguments: '' }]);
    expect(cutName('look', ['look', 'look_up'])).toEqual([]);
    expect(cutName('g', ['look', 'f'])).toEqual([]);
  });

  test('leaves out the replacement of a character that is incomplete', () => {
    const written = `${begin}<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":"x\u{fffd}`;
    expect(parsePieces([written], { isCut: true }).calls[0]?.function.arguments).toBe('{"a":"x');
  });

  test('keeps white space, a fence and < within a string', () => {
    for (const begun of ['{"a":"x ', '{"a":"```', '{"a":"x <', '{"a":"\\"<']) {
      const inside = `${begin}<｜tool▁call▁begin｜>f<｜tool▁sep｜>${begun}`;
      expect(parsePieces([inside], { isCut: true }).calls[0]?.function.arguments).toBe(begun);
      const fenced = `${begin}<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n\`\`\`json\n${begun}`;
      expect(parsePieces([fenced], { isCut: true }).calls[0]?.function.arguments).toBe(begun);
    }
  });
});

function isOutsideString(json: string): boolean {
  return (json.replaceAll(/\\./g, '').split('"').length - 1) % 2 === 0;
}

describe('the parser, however its input is divided,', () => {
  test('gives the same', () => {
    const seed = Date.now();
    const fragment = fc.constantFrom(
      'text',
      ' <',
      '｜',
      begin,
      end,
      '\n',
      '{}',
      '<｜tool▁sep｜>',
      '<｜tool▁',
      call('f', '{"a":[1,2]}'),
      call('', '{}'),
      call('function', 'g\n```json\n{}\n```'),
    );
    fc.assert(
      fc.property(
        fc.array(fragment, { maxLength: 12 }),
        fc.array(fc.nat(400), { maxLength: 20 }),
        fc.boolean(),
        (fragments, cuts, isCut) => {
          const written = fragments.join('');
          const places = [...new Set([0, ...cuts.filter((at) => at < written.length)])].toSorted(
            (a, b) => a - b,
          );
          const pieces = places.map((at, index) => written.slice(at, places[index + 1]));
          expect(pieces.join('')).toBe(written);
          expect(parsePieces(pieces, { isCut })).toEqual(parsePieces([written], { isCut }));
        },
      ),
      { seed, numRuns: 500 },
    );
  });
});

const tools = [
  {
    type: 'function',
    function: {
      name: 'look',
      description: 'Looks at the weather.',
      parameters: { type: 'object', properties: { city: { type: 'string' } } },
    },
  },
];
const question = {
  model: 'tiny',
  messages: [{ role: 'user', content: 'Weather in Bergen?' }],
  tools,
};
const script = answering('One moment.', begin, call('look', '{"city":"Bergen"}'), end);

function deepseekWorker(): Promise<HttpWorker> {
  const chatFormat = openChatFormat({
    tokenizerConfig: deepseekFiles.tokenizerConfig,
    tokenizer: deepseek,
  });
  const model = { tokenizer: deepseek, chatFormat };
  return httpWorker({ script, model, vocabSize: 129_280 });
}

async function ask(worker: HttpWorker, body: object): Promise<Response> {
  return worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-request-id': 'req' },
    body: JSON.stringify(body),
  });
}

/** The prompt as the engine got it. */
function lastPrompt(worker: HttpWorker): string {
  const tokens = worker.engine.requests.at(-1)?.promptTokens ?? [];
  return deepseek.decode(tokens, { skipSpecial: false });
}

const expectedCall = {
  id: 'call-req-0-0',
  type: 'function',
  function: { name: 'look', arguments: '{"city":"Bergen"}' },
};

test('a model that is offered tools answers with a call', async () => {
  await using worker = await deepseekWorker();
  const completion = (await (await ask(worker, question)).json()) as ChatCompletion;
  expect(completion.choices[0]).toMatchObject({
    message: { role: 'assistant', content: 'One moment.', tool_calls: [expectedCall] },
    finish_reason: 'tool_calls',
  });
  expect(lastPrompt(worker)).toContain('Looks at the weather.');
});

test('a streamed call comes as one delta', async () => {
  await using worker = await deepseekWorker();
  const response = await ask(worker, { ...question, stream: true });
  const events = parseEvents(await response.text()).slice(0, -1) as ChatCompletionChunk[];
  expect(events.map((event) => event.choices[0]?.delta)).toEqual([
    { role: 'assistant', content: '' },
    { content: 'One moment.' },
    { tool_calls: [{ index: 0, ...expectedCall }] },
    {},
  ]);
  expect(events.at(-1)?.choices[0]?.finish_reason).toBe('tool_calls');
});

test('the call and its result go back as history', async () => {
  await using worker = await deepseekWorker();
  const completion = (await (await ask(worker, question)).json()) as ChatCompletion;
  const messages = [
    ...question.messages,
    completion.choices[0]?.message,
    { role: 'tool', content: 'Rain.', tool_call_id: expectedCall.id },
  ];
  expect((await ask(worker, { ...question, messages })).status).toBe(200);
  expect(lastPrompt(worker)).toContain(
    'look<｜tool▁sep｜>{"city":"Bergen"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
  );
  expect(lastPrompt(worker)).toContain('<｜tool▁output▁begin｜>Rain.<｜tool▁output▁end｜>');
});

test('with tool_choice none the tools are left out and the output is text', async () => {
  await using worker = await deepseekWorker();
  const body = { ...question, tool_choice: 'none' };
  const completion = (await (await ask(worker, body)).json()) as ChatCompletion;
  expect(completion.choices[0]?.message.tool_calls).toBeUndefined();
  expect(completion.choices[0]?.finish_reason).toBe('stop');
  expect(lastPrompt(worker)).not.toContain('Looks at the weather.');
});

test('the template gets a description and parameters of a function that has none', async () => {
  await using worker = await deepseekWorker();
  const bare = [{ type: 'function', function: { name: 'look', strict: true } }];
  const response = await ask(worker, { ...question, tools: bare, tool_choice: 'none' });
  expect(response.status).toBe(200);
  expect((await ask(worker, { ...question, tools: bare })).status).toBe(200);
  expect(lastPrompt(worker)).toContain('### look\nDescription: \n');
});

test('a schema nested too deep for the stack is the request’s fault', async () => {
  await using worker = await deepseekWorker();
  const deep = `${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`;
  const text = JSON.stringify({
    ...question,
    tools: [{ type: 'function', function: { name: 'f', parameters: {} } }],
  });
  const response = await worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: text.replace('"parameters":{}', `"parameters":${deep}`),
  });
  expect([response.status, await response.json()]).toMatchObject([
    400,
    { error: { param: 'tools[0].function.parameters' } },
  ]);
});

test('DeepSeek fill-in-the-middle puts the hole between prompt and suffix', async () => {
  await using worker = await deepseekWorker();
  const response = await worker.app.request('/v1/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', prompt: 'def f(', suffix: 'return 1' }),
  });
  expect(response.status).toBe(200);
  expect(lastPrompt(worker)).toBe(
    '<｜begin▁of▁sentence｜><｜fim▁begin｜>def f(<｜fim▁hole｜>return 1<｜fim▁end｜>',
  );
});

test('a model that knows no tools refuses them, and takes a history of calls without text', async () => {
  await using worker = await httpWorker({ script: answering('Hi.'), model: formatModel('jinja') });
  const refused = await ask(worker, { model: 'tiny', messages: question.messages, tools });
  expect([refused.status, await refused.json()]).toMatchObject([
    400,
    { error: { param: 'tools' } },
  ]);
  const silent = { role: 'assistant', content: null };
  for (const turn of [{ ...silent, tool_calls: [expectedCall] }, silent]) {
    const messages = [...question.messages, turn, { role: 'user', content: 'And?' }];
    expect((await ask(worker, { model: 'tiny', messages })).status).toBe(200);
  }
});
