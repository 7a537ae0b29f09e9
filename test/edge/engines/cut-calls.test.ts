/**
 * A tool call of our own worker that is cut, as clients of either protocol see it through the edge.
 */
import { expect, test } from 'vitest';
import { createEventReader } from '../../../edge/engines/events.ts';
import { createAnthropicAnswer } from '../../../edge/dialects/anthropic/answer.ts';
import { createAnthropicEncoder } from '../../../edge/dialects/anthropic/events.ts';
import { createChatAnswer } from '../../../edge/dialects/openai/chat-answer.ts';
import { createOpenAiEncoder } from '../../../edge/dialects/openai/events.ts';
import { noUsage } from '../../../edge/money.ts';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import { deepseek, deepseekFiles } from '../../gpu-worker/tokenizer/fixture.ts';

const head = { id: 'r-1', model: 'm' };
const told = { hidesThinking: false };
const marks = ['<｜tool▁calls▁begin｜>', '<｜tool▁call▁begin｜>', 'look', '<｜tool▁sep｜>'];
const ends = ['<｜tool▁call▁end｜>', '<｜tool▁calls▁end｜>'];

/** The worker's events, as the edge asks for them, up to so many tokens. */
async function events(max_tokens: number) {
  const chatFormat = openChatFormat({
    tokenizerConfig: deepseekFiles.tokenizerConfig,
    tokenizer: deepseek,
  });
  await using worker = await httpWorker({
    script: answering('Hm. ', ...marks, '{"text":', '"a ', 'b"}', ...ends),
    vocabSize: 129_280,
    model: { tokenizer: deepseek, chatFormat },
  });
  const response = await worker.app.request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'tiny',
      messages: [{ role: 'user', content: 'Hi' }],
      tools: [{ type: 'function', function: { name: 'look' } }],
      max_tokens,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    }),
  });
  const reader = createEventReader({
    kind: 'chat',
    requestId: 'r-1',
    stops: { strings: [], tokens: [] },
    answers: 1,
    reportsCachedTokens: true,
    secrets: [],
  });
  const text = await response.text();
  return text
    .split('\n\n')
    .filter((each) => each.startsWith('data: '))
    .map((each) => reader.read({ data: each.slice('data: '.length) }))
    .flatMap((event) => (event.kind === 'chunk' ? [event] : []));
}

test.each([
  [6, '{"text":', 'length', 'max_tokens'],
  [7, '{"text":"a ', 'length', 'max_tokens'],
  [11, '{"text":"a b"}', 'tool_calls', 'tool_use'],
])('after %i tokens the call has the arguments %s', async (max, json, finish, stop) => {
  const all = await events(max);
  const usage = all.findLast((each) => each.usage !== null)?.usage;
  expect(usage?.outputText).toBe(Math.min(max, 10));

  const openAi = createOpenAiEncoder(head, { usage: false, runningUsage: false });
  const anthropic = createAnthropicEncoder(head, 'r-1', told);
  const chunks = all.map((each) => openAi.chunk(each.chunk, each.usage)).filter((each) => each);
  const deltas = chunks.map((each) => JSON.parse(each.slice('data: '.length)).choices[0].delta);
  expect(deltas[0]).toEqual({ role: 'assistant', content: '' });
  for (const delta of deltas.slice(1, -1)) expect(delta.content || delta.tool_calls).toBeTruthy();
  const blocks = all.map((each) => anthropic.chunk(each.chunk, each.usage)).join('');
  const partial = [...blocks.matchAll(/"partial_json":("(?:[^"\\]|\\.)*")/g)];
  expect(partial.map(([, text]) => JSON.parse(text ?? '')).join('')).toBe(json);
  expect(partial.length).toBeGreaterThan(0);
  expect(JSON.stringify(chunks) + blocks).not.toContain('｜');

  const chat = createChatAnswer(head);
  const message = createAnthropicAnswer(head, told);
  for (const { chunk } of all) {
    chat.add(chunk);
    message.add(chunk);
  }
  const bill = { usage: usage ?? noUsage, costNanoUsd: 0, cacheMissReason: null };
  expect(chat.finish(bill)).toMatchObject({
    choices: [
      {
        message: { content: 'Hm. ', tool_calls: [{ function: { name: 'look', arguments: json } }] },
        finish_reason: finish,
      },
    ],
  });
  expect(message.finish(bill)).toMatchObject({
    content: [
      { type: 'text', text: 'Hm. ' },
      { type: 'tool_use', name: 'look', input: finish === 'length' ? {} : { text: 'a b' } },
    ],
    stop_reason: stop,
  });
});
