/** The wish for thinking, in the words of each family's clients. */
import { expect, test } from 'vitest';
import { readThinking } from '../../../../gpu-worker/http/request/thinking.ts';
import { chatCompletionRequestSchema } from '../../../../gpu-worker/protocol/requests.ts';

const asked = { thinksByDefault: false, efforts: [] };
const glm = (...efforts: string[]) => ({ thinksByDefault: true, efforts });

function thinkingOf(rules: Parameters<typeof readThinking>[0], fields: object) {
  const messages = [{ role: 'user', content: 'a' }];
  const body = chatCompletionRequestSchema.parse({ model: 'm', messages, ...fields });
  const { wanted, variables } = readThinking(rules, body);
  return { wanted, ...variables };
}

test.each([
  [asked, {}, { wanted: false }],
  [asked, { reasoning_effort: 'low' }, { wanted: true }],
  [asked, { chat_template_kwargs: { enable_thinking: true } }, { wanted: true }],
  [glm('high', 'max'), {}, { wanted: true }],
  [glm('high', 'max'), { thinking: { type: 'disabled' } }, { wanted: false }],
  [glm('high', 'max'), { reasoning_effort: 'none' }, { wanted: false }],
  [glm('high', 'max'), { reasoning_effort: 'low' }, { wanted: true, reasoning_effort: 'high' }],
  [glm('high', 'max'), { reasoning_effort: 'ultra' }, { wanted: true, reasoning_effort: 'max' }],
  [glm('low', 'high'), { reasoning_effort: 'max' }, { wanted: true, reasoning_effort: 'high' }],
  [glm('low', 'high'), { reasoning_effort: 'minimal' }, { wanted: true, reasoning_effort: 'low' }],
  [
    glm('low', 'high'),
    { chat_template_kwargs: { clear_thinking: false, reasoning_effort: 'medium' } },
    { wanted: true, clear_thinking: false, reasoning_effort: 'high' },
  ],
])('with %j, %j means %j', (rules, fields, expected) => {
  expect(thinkingOf(rules, fields)).toEqual(expected);
});

test.each([
  [{ thinking: { type: 'enabled' }, chat_template_kwargs: { enable_thinking: false } }],
  [{ chat_template_kwargs: { thinking: true, enable_thinking: false } }],
  [{ reasoning_effort: 'low', chat_template_kwargs: { reasoning_effort: 'high' } }],
])('%j contradicts itself', (fields) => {
  expect(() => thinkingOf(asked, fields)).toThrow('contradicts');
});
