/** `sift render` and `sift parse`, over the tiny model that thinks and calls tools. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { writeToolsModel } from '../../support/worker/tools-model.ts';

const sift = fileURLToPath(new URL('../../../infra/sift.ts', import.meta.url));
const folder = temporaryDirectory();
const model = join(folder, 'model');
writeToolsModel(model);

function run(...args: readonly string[]) {
  return spawnSync(process.execPath, [sift, ...args], { encoding: 'utf8' });
}

function render(body: unknown, ...flags: readonly string[]) {
  const request = join(folder, 'request.json');
  writeFileSync(request, typeof body === 'string' ? body : JSON.stringify(body));
  return run('render', '--model', model, '--request', request, ...flags);
}

function parse(text: string, ...flags: readonly string[]): unknown {
  const completion = join(folder, 'completion.txt');
  writeFileSync(completion, text);
  const { stdout } = run('parse', '--model', model, '--completion', completion, ...flags);
  return JSON.parse(stdout);
}

const user = { role: 'user', content: 'What lies in Rivoka?' };
const call = {
  id: 'call-0',
  type: 'function',
  function: { name: 'look', arguments: '{"town":"Rivoka"}' },
};

test('the prompt is printed as the template writes it, and nothing else', () => {
  expect(render({ messages: [user] }).stdout).toBe(
    '<|begin|><|user|>What lies in Rivoka?<|assistant|>',
  );
  const thinking = render({ messages: [user], max_tokens: 4, temperature: 0 }, '--thinking');
  expect(thinking.stdout).toBe('<|begin|><|user|>What lies in Rivoka?<|assistant|><think>');
});

test('ids tell a control token that the template wrote from one that a user typed', () => {
  const said = (content: string): number[] =>
    JSON.parse(render({ messages: [{ role: 'user', content }] }, '--ids').stdout);
  const [begin, userTurn] = said('a');
  const typed = said('<|user|>');
  expect(typed.slice(0, 2)).toEqual([begin, userTurn]);
  expect(typed.slice(2)).not.toContain(userTurn);
});

test('the message of a completion is what the API would answer', () => {
  expect(parse('In the harbor.<|end|> and on')).toEqual({
    role: 'assistant',
    content: 'In the harbor.',
  });
  expect(parse('Where?</think>In the harbor.', '--thinking')).toEqual({
    role: 'assistant',
    content: 'In the harbor.',
    reasoning_content: 'Where?',
  });
  expect(parse('Where', '--thinking')).toMatchObject({ content: '', reasoning_content: 'Where' });
});

test('a call that was rendered is parsed to the same call', () => {
  const answer = { role: 'assistant', content: null, tool_calls: [call] };
  const prompt = render({ messages: [user, answer, user] }).stdout;
  const written = prompt.split('<|assistant|>')[1] ?? '';
  expect(parse(written)).toMatchObject({
    content: null,
    tool_calls: [{ type: 'function', function: call.function }],
  });
});

test.each([
  ['{', 2, 'is not JSON'],
  ['[]', 2, 'holds no JSON object'],
  ['1', 2, 'holds no JSON object'],
  [{ messages: [user], top: 1 }, 1, "Unknown parameter: 'top'."],
  [{ messages: [{ ...user, role: 'you' }] }, 1, 'messages[0].role'],
])('the request %j is refused in one line', (body, code, message) => {
  const { status, stderr } = render(body);
  expect([status, stderr]).toEqual([code, expect.stringContaining(message)]);
  expect(stderr).not.toContain('    at ');
});
