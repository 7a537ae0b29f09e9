/** `sift render` and `sift parse`, over the tiny model that thinks and calls tools. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { configure as configureParse } from '../../../gpu-worker/commands/parse.ts';
import { configure as configureRender } from '../../../gpu-worker/commands/render.ts';
import { createProgram, runProgram } from '../../../infra/program.ts';
import type { CommandModule } from '../../../infra/program.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { writeToolsModel } from '../../support/worker/tools-model.ts';

const folder = temporaryDirectory();
const model = join(folder, 'model');
writeToolsModel(model);

/** Runs a command in this process, which spares the start of one for each case. */
async function run(configure: CommandModule['configure'], ...args: readonly string[]) {
  let stdout = '';
  let stderr = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += String(text);
    return true;
  });
  const program = createProgram('sift test', 'a command under test').configureOutput({
    writeErr: (text) => (stderr += text),
  });
  configure(program);
  const status = await runProgram(program, args);
  write.mockRestore();
  return { status, stdout, stderr };
}

async function render(body: unknown, ...flags: readonly string[]) {
  const request = join(folder, 'request.json');
  writeFileSync(request, typeof body === 'string' ? body : JSON.stringify(body));
  return run(configureRender, '--model', model, '--request', request, ...flags);
}

async function parse(text: string, ...flags: readonly string[]): Promise<unknown> {
  const completion = join(folder, 'completion.txt');
  writeFileSync(completion, text);
  const { stdout } = await run(
    configureParse,
    '--model',
    model,
    '--completion',
    completion,
    ...flags,
  );
  return JSON.parse(stdout);
}

const user = { role: 'user', content: 'What lies in Rivoka?' };
const call = {
  id: 'call-0',
  type: 'function',
  function: { name: 'look', arguments: '{"town":"Rivoka"}' },
};

test('the prompt is printed as the template writes it, and nothing else', async () => {
  expect((await render({ messages: [user] })).stdout).toBe(
    '<|begin|><|user|>What lies in Rivoka?<|assistant|>',
  );
  const thinking = await render({ messages: [user], max_tokens: 4, temperature: 0 }, '--thinking');
  expect(thinking.stdout).toBe('<|begin|><|user|>What lies in Rivoka?<|assistant|><think>');
});

test('ids tell a control token that the template wrote from one that a user typed', async () => {
  const said = async (content: string): Promise<number[]> =>
    JSON.parse((await render({ messages: [{ role: 'user', content }] }, '--ids')).stdout);
  const [begin, userTurn] = await said('a');
  const typed = await said('<|user|>');
  expect(typed.slice(0, 2)).toEqual([begin, userTurn]);
  expect(typed.slice(2)).not.toContain(userTurn);
});

test('the message of a completion is what the API would answer', async () => {
  expect(await parse('In the harbor.<|end|> and on')).toEqual({
    role: 'assistant',
    content: 'In the harbor.',
  });
  expect(await parse('Where?</think>In the harbor.', '--thinking')).toEqual({
    role: 'assistant',
    content: 'In the harbor.',
    reasoning_content: 'Where?',
  });
  expect(await parse('Where', '--thinking')).toMatchObject({
    content: '',
    reasoning_content: 'Where',
  });
});

test('a call that was rendered is parsed to the same call', async () => {
  const answer = { role: 'assistant', content: null, tool_calls: [call] };
  const prompt = (await render({ messages: [user, answer, user] })).stdout;
  const written = prompt.split('<|assistant|>')[1] ?? '';
  expect(await parse(written)).toMatchObject({
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
])('the request %j is refused in one line', async (body, code, message) => {
  const { status, stderr } = await render(body);
  expect([status, stderr]).toEqual([code, expect.stringContaining(message)]);
  expect(stderr).not.toContain('    at ');
});
