/** The choice of a checkpoint's format, and what formats refuse. */
import { describe, expect, test } from 'vitest';
import { chatFormatNames } from '../../../gpu-worker/chat-formats/chat-format.ts';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import { TokenizerError } from '../../../gpu-worker/tokenizer/tokenizer-files.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { formatModel, glmFiles, plainFiles, v32Files } from '../../support/worker/format-models.ts';
import { deepseek, deepseekFiles, tiny, tinyFiles } from '../tokenizer/fixture.ts';

test.each(chatFormatNames)('the format %s is known by its tokens and its template', (name) => {
  const { chatFormat } = formatModel(name);
  expect(chatFormat.name).toBe(name);
  expect(chatFormat.calls?.name ?? 'jinja').toBe(name);
});

describe('a checkpoint', () => {
  const { tokenizer } = formatModel('deepseek-v32');
  const noTemplate = { ...deepseekFiles.tokenizerConfig, chat_template: null };

  test('of the family of V3.2 that has a template is of V3.2-Exp', () => {
    const { tokenizerConfig } = deepseekFiles;
    const format = openChatFormat({ tokenizerConfig, tokenizer, family: 'deepseek-v32' });
    expect(format.name).toBe('deepseek-v31');
  });

  test('without a template, without the mark of V3.2, is of V3.2 if its family is', () => {
    const options = { tokenizerConfig: noTemplate, tokenizer: deepseek };
    expect(openChatFormat({ ...options, family: 'deepseek-v32' }).name).toBe('deepseek-v32');
    expect(openChatFormat(options).name).toBe('jinja');
  });

  test('without a template or marks completes text only', () => {
    const tokenizerConfig = { ...tinyFiles.tokenizerConfig, chat_template: null };
    const format = openChatFormat({ tokenizerConfig, tokenizer: tiny, family: 'deepseek-v32' });
    expect(() => format.render({ messages: [{ role: 'user', content: 'a' }] })).toThrow(
      'the model has no chat template',
    );
  });

  test('whose format is named is taken at that word', () => {
    const { tokenizerConfig } = deepseekFiles;
    const options = { tokenizerConfig, tokenizer };
    expect(openChatFormat({ ...options, forced: 'deepseek-v32' }).name).toBe('deepseek-v32');
    expect(openChatFormat({ ...options, forced: 'jinja' }).calls).toBe(null);
  });
});

test.each([
  ['deepseek-v32', 'tokenizer.json has no token <｜begin▁of▁sentence｜>, which the chat format'],
  ['deepseek-v31', 'tokenizer.json has no token <｜tool▁calls▁begin｜>, which the chat format'],
  ['deepseek-v3', 'tokenizer.json has no token <｜tool▁calls▁begin｜>, which the chat format'],
  ['glm', 'tokenizer.json has no token <tool_call>, which the chat format glm needs'],
] as const)('a tokenizer without the marks of %s is refused in one line', (forced, message) => {
  const { tokenizer } = formatModel('jinja');
  const open = () => openChatFormat({ ...plainFiles, tokenizer, forced });
  expect(open).toThrow(TokenizerError);
  expect(open).toThrow(message);
});

test("a tokenizer without its family's marks is refused too", () => {
  expect(() => openChatFormat({ ...tinyFiles, tokenizer: tiny, family: 'glm' })).toThrow(
    'tokenizer.json has no token <tool_call>, which the chat format glm needs',
  );
});

test('a format that is a template is refused without one', () => {
  const tokenizerConfig = { ...glmFiles.tokenizerConfig, chat_template: null };
  const { tokenizer } = formatModel('glm');
  expect(() => openChatFormat({ tokenizerConfig, tokenizer, forced: 'glm' })).toThrow(
    'tokenizer_config.json has no chat_template, which the chat format glm needs',
  );
});

describe('GLM', () => {
  const { chatFormat } = formatModel('glm');
  const user = { role: 'user', content: 'a' };

  test('writes the arguments of calls, which come as text, one by one', () => {
    const call = { id: 'c', function: { name: 'f', arguments: '{"text":"12","list":[1,"b"]}' } };
    const { text } = chatFormat.render({
      messages: [user, { role: 'assistant', content: null, tool_calls: [call] }],
    });
    expect(text).toContain(
      '<tool_call>f<arg_key>text</arg_key><arg_value>12</arg_value>' +
        '<arg_key>list</arg_key><arg_value>[1, "b"]</arg_value></tool_call>',
    );
  });

  test('keeps the reasoning of earlier turns if it is told to', () => {
    const messages = [user, { role: 'assistant', content: 'b', reasoning_content: 'R' }, user];
    const render = (variables: object) =>
      chatFormat.render({ messages, variables: { ...variables }, thinking: true }).text;
    expect(render({})).not.toContain('R');
    expect(render({ clear_thinking: false })).toContain('<think>R</think>b');
  });

  test('knows the depths of thinking that its template compares with', () => {
    expect(chatFormat.efforts).toEqual(['high', 'max']);
    expect(chatFormat.thinksByDefault).toBe(true);
  });
});

test('the marks of calls are shown where a tokenizer counts them as special', () => {
  const tokenizer = openTokenizer(v32Files);
  const mark = tokenizer.controlToken('｜DSML｜') ?? -1;
  expect(tokenizer.decode([mark], { skipSpecial: true })).toBe('｜DSML｜');
});
