import { describe, expect, test } from 'vitest';
import { createChatTemplate } from '../../../gpu-worker/tokenizer/chat-template.ts';
import type { ChatMessage, ChatRequest } from '../../../gpu-worker/tokenizer/chat-template.ts';
import { InvalidPromptError } from '../../../gpu-worker/tokenizer/content-marks.ts';
import { TokenizerError } from '../../../gpu-worker/tokenizer/tokenizer-files.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import {
  deepseek,
  deepseekFiles,
  deepseekV3Files,
  tiny,
  tinyExpected,
  tinyFiles,
} from './fixture.ts';

const tinyChat = createChatTemplate(tinyFiles.tokenizerConfig, tiny);
const deepseekChat = createChatTemplate(deepseekFiles.tokenizerConfig, deepseek);

const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });
const system = (content: string): ChatMessage => ({ role: 'system', content });

/** A template of the tiny tokenizer in one line. */
function chatOf(template: unknown) {
  return createChatTemplate({ ...tinyFiles.tokenizerConfig, chat_template: template }, tiny);
}

const toolCall = (name: string, json: string) => ({
  type: 'function',
  function: { name, arguments: json },
});

describe("the tiny model's template", () => {
  test('gives exactly the expected tokens for every expected prompt', () => {
    for (const { prompt, input_ids: ids } of tinyExpected) {
      expect([...tinyChat.render({ messages: [user(prompt)] }).tokens]).toEqual(ids);
    }
  });

  test('puts system text in front of the first user text, and turns after one another', () => {
    const messages = [system('Be brief.'), user('a'), assistant('b'), user('c')];
    expect(tinyChat.render({ messages }).text).toBe(
      '<|begin|><|user|>Be brief.\n\na<|assistant|>b<|end|><|user|>c<|assistant|>',
    );
  });

  test('joins several system texts with blank lines', () => {
    const messages = [system('one'), { role: 'developer', content: 'two' }, user('a')];
    expect(tinyChat.render({ messages }).text).toBe(
      '<|begin|><|user|>one\n\ntwo\n\na<|assistant|>',
    );
  });

  test('can leave the last answer open, or end after it', () => {
    const messages = [user('a'), assistant('The access')];
    expect(tinyChat.render({ messages, promptEnd: 'continue-final' }).text).toBe(
      '<|begin|><|user|>a<|assistant|>The access',
    );
    expect(tinyChat.render({ messages, promptEnd: 'none' }).text).toBe(
      '<|begin|><|user|>a<|assistant|>The access<|end|>',
    );
  });

  test('begins with one begin token', () => {
    const { tokens } = tinyChat.render({ messages: [user('a')] });
    expect([...tokens].filter((token) => token === 0)).toHaveLength(1);
  });

  test('puts an empty reasoning before an answer that is asked to think', () => {
    const on = tinyChat.render({ messages: [user('a')], thinking: true });
    expect(on.text).toBe('<|begin|><|user|>a<think></think><|assistant|>');
    expect(on.insideReasoning).toBe(false);
  });

  test('describes tools before system text, marks calls, and asks again behind their results', () => {
    const result = (content: string) => ({ role: 'tool', tool_call_id: 'x', content });
    const calling = {
      role: 'assistant',
      content: null,
      tool_calls: [toolCall('f', '{"a":1}'), toolCall('g', '{}')],
    };
    const tools = [{ type: 'function', function: { name: 'f' } }];
    const history = [system('Be brief.'), user('a?'), calling, result('one'), result('two')];
    const answered =
      '<|begin|><|user|>{"name": "f"}\n\nBe brief.\n\na?<|assistant|><｜tool▁calls▁begin｜>' +
      '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":1}<｜tool▁call▁end｜>' +
      '<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜><|end|>' +
      '<|user|>one\n\ntwo\n\na?<|assistant|>';
    expect(tinyChat.render({ messages: history, tools }).text).toBe(answered);
    const messages = [...history, assistant('b'), user('c')];
    expect(tinyChat.render({ messages, tools }).text).toBe(
      `${answered}b<|end|><|user|>c<|assistant|>`,
    );
  });

  test.each<[string, ChatRequest, string]>([
    ['no messages', { messages: [] }, 'no user message'],
    ['only system text', { messages: [system('a')] }, 'no user message'],
    ['an answer first', { messages: [assistant('a'), user('b')] }, "first turn must be the user's"],
    [
      'an unknown role',
      { messages: [user('a'), { role: 'guest', content: 'b' }] },
      'no role guest',
    ],
    [
      'a result without a call',
      { messages: [user('a'), { role: 'tool', content: 'b' }] },
      'no call comes before the tool result',
    ],
  ])('refuses %s', (_, request, problem) => {
    expect(() => tinyChat.render(request)).toThrow(InvalidPromptError);
    expect(() => tinyChat.render(request)).toThrow(problem);
  });
});

describe("DeepSeek's template", () => {
  const messages = [
    system('You are helpful.'),
    user('Who are you?'),
    assistant('<think>Hmm</think>I am DeepSeek.'),
    user('1+1=?'),
  ];
  const history =
    '<｜begin▁of▁sentence｜>You are helpful.<｜User｜>Who are you?' +
    '<｜Assistant｜></think>I am DeepSeek.<｜end▁of▁sentence｜><｜User｜>1+1=?<｜Assistant｜>';

  test('opens the reasoning with thinking on, and drops that of earlier answers', () => {
    const rendered = deepseekChat.render({ messages, thinking: true });
    expect(rendered.text).toBe(`${history}<think>`);
    expect(rendered.insideReasoning).toBe(true);
    expect(rendered.tokens.at(-1)).toBe(128798);
    expect(deepseekChat.reasoningEndToken).toBe(128799);
  });

  test('closes the reasoning at once with thinking off', () => {
    for (const request of [{ messages }, { messages, thinking: false }]) {
      const rendered = deepseekChat.render(request);
      expect(rendered.text).toBe(`${history}</think>`);
      expect(rendered.insideReasoning).toBe(false);
    }
  });

  test('joins system texts with a blank line, before the first user turn', () => {
    const { text } = deepseekChat.render({ messages: [system('a'), user('b'), system('c')] });
    expect(text).toBe('<｜begin▁of▁sentence｜>a\n\nc<｜User｜>b<｜Assistant｜></think>');
  });

  test('continues an answer, inside its reasoning with thinking on', () => {
    const request = {
      messages: [user('a'), assistant('So ')],
      promptEnd: 'continue-final',
    } as const;
    const on = deepseekChat.render({ ...request, thinking: true });
    expect(on.text).toBe('<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜><think>So ');
    expect(on.insideReasoning).toBe(true);
    const off = deepseekChat.render(request);
    expect(off.text).toBe('<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>So ');
    expect(off.insideReasoning).toBe(false);
  });

  test('renders parallel tool calls and their results', () => {
    const parameters = { type: 'object', properties: { city: { type: 'string' } } };
    const { text } = deepseekChat.render({
      messages: [
        user('a'),
        {
          role: 'assistant',
          content: null,
          tool_calls: [toolCall('f', '{"city":"Ö"}'), toolCall('g', '{}')],
        },
        { role: 'tool', content: 'one' },
        { role: 'tool', content: 'two' },
      ],
      tools: [{ type: 'function', function: { name: 'f', description: 'F.', parameters } }],
    });
    expect(text).toBe(
      '<｜begin▁of▁sentence｜>\n\n## Tools\n\n### f\nDescription: F.\n\n' +
        'Parameters: {"type": "object", "properties": {"city": {"type": "string"}}}\n' +
        '<｜User｜>a<｜Assistant｜></think><｜tool▁calls▁begin｜>' +
        '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"city":"Ö"}<｜tool▁call▁end｜>' +
        '<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>' +
        '<｜end▁of▁sentence｜><｜tool▁output▁begin｜>one<｜tool▁output▁end｜>' +
        '<｜tool▁output▁begin｜>two<｜tool▁output▁end｜>',
    );
  });

  test('of the first V3, from before there was thinking, renders turns as published', () => {
    const chat = createChatTemplate(
      deepseekV3Files.tokenizerConfig,
      openTokenizer(deepseekV3Files),
    );
    const turns = [system('S'), user('a'), assistant('b'), user('c')];
    const rendered = chat.render({ messages: turns, thinking: true });
    expect(rendered.text).toBe(
      '<｜begin▁of▁sentence｜>S<｜User｜>a<｜Assistant｜>b<｜end▁of▁sentence｜><｜User｜>c<｜Assistant｜>',
    );
    expect(rendered.insideReasoning).toBe(false);
    expect(chat.reasoningEndToken).toBeNull();
  });

  test('takes an empty list of tools as none', () => {
    const { text } = deepseekChat.render({ messages: [user('a')], tools: [] });
    expect(text).not.toContain('Tools');
  });
});

describe('an answer without text', () => {
  const called = (content?: null | '') =>
    ({
      role: 'assistant',
      ...(content !== undefined && { content }),
      tool_calls: [toolCall('f', '{"a":1}')],
    }) as const;
  const contents = [undefined, null, ''] as const;

  test.each(contents)(
    'in the tiny model’s history is empty, with calls and without: %j',
    (content) => {
      const written =
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":1}' +
        '<｜tool▁call▁end｜><｜tool▁calls▁end｜>';
      const calling = { messages: [user('a'), called(content), user('b')] };
      const text = '<|begin|><|user|>a<|assistant|><|end|><|user|>b<|assistant|>';
      expect(tinyChat.render(calling).text).toBe(text.replace('<|end|>', `${written}<|end|>`));
      const silent = { role: 'assistant', content };
      expect(tinyChat.render({ messages: [user('a'), silent, user('b')] }).text).toBe(text);
    },
  );

  test.each([
    "{{ message.content + '!' }}",
    "{{ '<' ~ message.content }}",
    '{{ message.content | trim }}',
    "{{ message['content'].split('a')[0] }}",
    '{% if message.content is string %}{% else %}{% for p in message.content %}{% endfor %}{% endif %}',
  ])('is taken by a template that works on text: %s', (expression) => {
    const chat = chatOf(`{% for message in messages %}${expression}{% endfor %}`);
    for (const content of contents) {
      const messages = [user('a'), called(content), { role: 'assistant', content }];
      expect(() => chat.render({ messages })).not.toThrow();
    }
  });

  test.each([
    ['V3.1', deepseekFiles],
    ['V3', deepseekV3Files],
  ] as const)('keeps its calls in the template of %s, empty or null', (_, files) => {
    const chat = createChatTemplate(files.tokenizerConfig, openTokenizer(files));
    for (const content of contents) {
      const messages = [user('a'), called(content), { role: 'tool', content: 'one' }];
      const { text } = chat.render({ messages });
      expect(text).toContain('{"a":1}');
      expect(text).not.toContain('None');
    }
  });
});

describe('a template', () => {
  test('that the checkpoint lacks is reported when messages come', () => {
    for (const template of [undefined, null]) {
      expect(() => chatOf(template).render({ messages: [user('a')] })).toThrow(InvalidPromptError);
      expect(() => chatOf(template).render({ messages: [user('a')] })).toThrow('no chat template');
    }
  });

  test('that is malformed is refused when it is opened', () => {
    expect(() => chatOf('{% for %}')).toThrow(TokenizerError);
    expect(() => chatOf('{% if a %}')).toThrow('chat_template');
    expect(() => chatOf(7)).toThrow('tokenizer_config.json: chat_template');
  });

  test('that refuses messages is quoted in the error', () => {
    const chat = chatOf("{{ raise_exception('roles must alternate') }}");
    expect(() => chat.render({ messages: [user('a')] })).toThrow(
      new InvalidPromptError('the chat template refuses the messages: roles must alternate'),
    );
  });

  test('that trips over the messages ends in the same error', () => {
    const chat = chatOf('{{ messages[0].content.nothing() }}');
    expect(() => chat.render({ messages: [user('a')] })).toThrow(InvalidPromptError);
  });

  test('that leaves out the message to continue is reported', () => {
    const request = { messages: [assistant('a')], promptEnd: 'continue-final' } as const;
    expect(() => chatOf('x').render(request)).toThrow('leaves out the message to continue');
  });

  test('for tools is taken when there are tools, of several by name', () => {
    const chat = chatOf([
      { name: 'default', template: 'plain' },
      { name: 'tool_use', template: 'tools' },
    ]);
    expect(chat.render({ messages: [] }).text).toBe('plain');
    expect(chat.render({ messages: [], tools: [{ type: 'function' }] }).text).toBe('tools');
  });

  test('sees no key that the message leaves undefined', () => {
    const chat = chatOf('{{ messages[0].name is defined }}');
    expect(chat.render({ messages: [{ role: 'user', name: undefined }] }).text).toBe('false');
  });
});
