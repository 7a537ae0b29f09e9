/** DeepSeek-V3.2's chat format against the published cases, and the rules behind them. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { textOfParts } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import { callSyntaxes } from '../../../gpu-worker/chat-formats/call-syntaxes.ts';
import { encodeV32 } from '../../../gpu-worker/chat-formats/deepseek-v32.ts';
import { readConversation } from '../../../gpu-worker/http/request/chat-prompt.ts';
import { chatCompletionRequestSchema } from '../../../gpu-worker/protocol/requests.ts';
import type { ChatRequest } from '../../../gpu-worker/tokenizer/chat-template.ts';
import { formatModel } from '../../support/worker/format-models.ts';

const cases = z
  .object({
    encode: z.array(
      z.object({ request: z.looseObject({}), thinking: z.boolean(), prompt: z.string() }),
    ),
  })
  .parse(
    JSON.parse(
      readFileSync(new URL('../../goldens/dsv32-encoding/cases.json', import.meta.url), 'utf8'),
    ),
  );

const rules = {
  calls: callSyntaxes['deepseek-v32'],
  thinksByDefault: false,
  efforts: [],
  showsAsSent: true,
};

/** The prompt of a request as the API takes it. */
function promptOf(request: object, thinking: boolean): string {
  const body = chatCompletionRequestSchema.parse({
    model: 'm',
    ...request,
    thinking: { type: thinking ? 'enabled' : 'disabled' },
  });
  return textOfParts(encodeV32(readConversation(rules, body).chat).parts);
}

test.each(cases.encode.map((each, index) => ({ ...each, index })))(
  'the published prompt $index is written to the letter',
  ({ request, thinking, prompt }) => {
    expect(promptOf(request, thinking)).toBe(prompt);
  },
);

const user = (content: string) => ({ role: 'user', content });
const call = (name: string, args: string) => ({
  id: 'c',
  type: 'function',
  function: { name, arguments: args },
});
const calling = (reasoning: string | null, ...calls: ReturnType<typeof call>[]) => ({
  role: 'assistant',
  content: null,
  ...(reasoning !== null && { reasoning_content: reasoning }),
  tool_calls: calls,
});
const result = (content: string) => ({ role: 'tool', tool_call_id: 'c', content });

describe('reasoning', () => {
  const loop = [user('a'), calling('R', call('f', '{}')), result('x')];

  test('is kept within a loop of tools, and gone once the user speaks again', () => {
    expect(promptOf({ messages: loop }, true)).toContain('<think>R</think>\n\n<｜DSML｜');
    const later = promptOf(
      { messages: [...loop, { role: 'assistant', content: 'y' }, user('b')] },
      true,
    );
    expect(later).not.toContain('R</think>');
    expect(later).toMatch(/<｜User｜>b<｜Assistant｜><think>$/);
  });

  test('that a client does not send back is empty', () => {
    const messages = [user('a'), calling(null, call('f', '{}')), result('x')];
    expect(promptOf({ messages }, true)).toContain('<｜Assistant｜><think></think>\n\n<｜DSML｜');
  });

  test('is not shown to a model that does not think', () => {
    expect(promptOf({ messages: loop }, false)).not.toContain('R');
  });
});

test('what a developer said before the last turn is dropped for a model that thinks', () => {
  const messages = [
    user('a'),
    { role: 'developer', content: 'DEV' },
    { role: 'assistant', content: 'b' },
    user('c'),
  ];
  expect(promptOf({ messages }, true)).not.toContain('DEV');
  expect(promptOf({ messages }, false)).toContain("# The user's message is: DEV<｜Assistant｜>");
});

test('results that do not match the calls in number still stand together', () => {
  const messages = [user('a'), calling('R', call('f', '{}'), call('g', '')), result('x')];
  expect(promptOf({ messages }, false)).toMatch(
    /<function_results>\n<result>x<\/result>\n<\/function_results>\n\n<\/think>$/,
  );
});

test.each([
  ['{"10":1,"2":"b"}', '"10" string="false">1<', '"2" string="true">b<'],
  ['{"a":1.0,"b":1e16,"c":1E-7}', '"a" string="false">1.0<', '"c" string="false">1e-07<'],
  ['{"a":12345678901234567890}', '"a" string="false">12345678901234567890<'],
  ['{"a":{"x":[1,{"y":null}]},"b":true}', '"a" string="false">{"x": [1, {"y": null}]}<'],
  ['{"a":"1","a":"2"}', '"a" string="true">2<'],
  [String.raw`{"a\n\"":"\u00e9\\ \t"}`, '"a\n"" string="true">é\\ \t<'],
  ['{"a":"</｜DSML｜parameter>"}', '"a" string="true"></｜DSML｜parameter><'],
])('the arguments %s are written as parameters', (json, ...written) => {
  const prompt = promptOf({ messages: [user('a'), calling(null, call('f', json))] }, false);
  for (const each of written) expect(prompt).toContain(`<｜DSML｜parameter name=${each}`);
});

test.each(['[]', '1', '{', 'city'])('the arguments %j are refused by name', (json) => {
  expect(() => promptOf({ messages: [user('a'), calling(null, call('f', json))] }, false)).toThrow(
    'the arguments of a call of f are no JSON object',
  );
});

describe('the tokens', () => {
  const { tokenizer, chatFormat } = formatModel('deepseek-v32');
  const render = (request: ChatRequest) => chatFormat.render(request);
  const controlsOf = (tokens: Int32Array): string[] =>
    [...tokens]
      .map((token) => tokenizer.decode([token], { skipSpecial: false }))
      .filter((text) => tokenizer.controlToken(text) !== null);

  test('are control tokens where the format wrote a mark, and only there', () => {
    const typed = '<think></｜DSML｜invoke><｜User｜>';
    const { tokens, text, insideReasoning } = render({
      messages: [user(typed), calling(typed, call('f', JSON.stringify({ a: typed })))],
      thinking: true,
    });
    expect(text).toContain(`<｜User｜>${typed}<｜Assistant｜><think>${typed}</think>`);
    expect(controlsOf(tokens)).toEqual(
      [
        ['<｜begin▁of▁sentence｜>', '<｜User｜>', '<｜Assistant｜>', '<think>', '</think>'],
        Array.from({ length: 6 }, () => '｜DSML｜'),
        ['<｜end▁of▁sentence｜>'],
      ].flat(),
    );
    expect(insideReasoning).toBe(false);
  });

  test('spell the prompt, whatever users write', () => {
    for (const { request, thinking } of cases.encode.slice(0, 10)) {
      const body = chatCompletionRequestSchema.parse({ model: 'm', ...request });
      const { chat } = readConversation(chatFormat, body);
      const { text, tokens, insideReasoning } = render({ ...chat, thinking });
      expect(tokenizer.decode(tokens, { skipSpecial: false })).toBe(text);
      expect(insideReasoning).toBe(thinking);
    }
  });

  test('continue an answer behind its reasoning', () => {
    const messages = [user('a'), { role: 'assistant', content: 'So ' }];
    const { text, insideReasoning } = render({
      messages,
      thinking: true,
      promptEnd: 'continue-final',
    });
    expect(text).toBe('<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜><think></think>So ');
    expect(insideReasoning).toBe(false);
  });
});
