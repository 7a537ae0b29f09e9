/** `sift render` and `sift parse`, over the tiny model that thinks and calls tools. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { configure as configureParse } from '../../../gpu-worker/commands/parse.ts';
import { configure as configureRender } from '../../../gpu-worker/commands/render.ts';
import { runCommand } from '../../support/run-command.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { writeToolsModel } from '../../support/worker/tools-model.ts';

const folder = temporaryDirectory();
const model = join(folder, 'model');
writeToolsModel(model);

async function render(body: unknown, ...flags: readonly string[]) {
  const request = join(folder, 'request.json');
  writeFileSync(request, typeof body === 'string' ? body : JSON.stringify(body));
  return runCommand(configureRender, '--model', model, '--request', request, ...flags);
}

async function parse(text: string, ...flags: readonly string[]): Promise<unknown> {
  const completion = join(folder, 'completion.txt');
  writeFileSync(completion, text);
  const { stdout } = await runCommand(
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
    reasoning_content: '',
    tool_calls: [],
  });
  expect(await parse('Where?</think>In the harbor.', '--thinking')).toEqual({
    role: 'assistant',
    content: 'In the harbor.',
    reasoning_content: 'Where?',
    tool_calls: [],
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
    content: '',
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

/** Runs a command with a file of this text as the value of a flag, or as the standard input. */
async function runOn(
  command: 'render' | 'parse',
  { text, args }: { text: string; args: readonly string[] },
) {
  const file = join(folder, 'input.txt');
  writeFileSync(file, text);
  const flag = command === 'render' ? '--request' : '--completion';
  return runCommand(command === 'render' ? configureRender : configureParse, flag, file, ...args);
}

describe('a format that a program writes needs no checkpoint', () => {
  const { encode, parse: answers } = readCases();

  test('to render', async () => {
    for (const { request, thinking, prompt } of encode) {
      const args = ['--format', 'deepseek-v32', ...(thinking ? ['--thinking'] : [])];
      const { stdout } = await runOn('render', { text: JSON.stringify(request), args });
      expect(stdout).toBe(prompt);
    }
  });

  test('to parse', async () => {
    for (const { completion, thinking, message } of answers) {
      const args = ['--format', 'deepseek-v32', ...(thinking ? ['--thinking'] : [])];
      const { stdout } = await runOn('parse', { text: completion, args });
      const read = messageSchema.parse(JSON.parse(stdout));
      expect({ ...read, tool_calls: read.tool_calls.map(callOf) }).toEqual(message);
    }
  });
});

test("the types of GLM's arguments are those of the request's tools", async () => {
  const request = join(folder, 'tools.json');
  const parameters = { type: 'object', properties: { zip: { type: 'string' } } };
  const body = {
    messages: [user],
    tools: [{ type: 'function', function: { name: 'f', parameters } }],
  };
  writeFileSync(request, JSON.stringify(body));
  const text =
    'Zip?<tool_call>f<arg_key>zip</arg_key><arg_value>01</arg_value></tool_call><|observation|>';
  const args = ['--format', 'glm', '--thinking', '--request', request];
  const { stdout } = await runOn('parse', { text, args });
  expect(messageSchema.parse(JSON.parse(stdout))).toEqual({
    content: '',
    reasoning_content: 'Zip?',
    tool_calls: [{ function: { name: 'f', arguments: '{"zip": "01"}' } }],
  });
});

test.each([
  [
    'render',
    ['--format', 'deepseek-v4'],
    2,
    '--format: deepseek-v4 is none of jinja, deepseek-v32',
  ],
  [
    'render',
    ['--format', 'glm'],
    2,
    "--model is missing: glm is written by a checkpoint's template",
  ],
  ['render', ['--format', 'deepseek-v32', '--ids'], 2, '--ids needs the tokenizer of a --model'],
  ['render', [], 2, '--model or --format is missing'],
  ['parse', [], 2, '--model or --format is missing'],
  ['parse', ['--format', 'dsml'], 2, '--format: dsml is none of'],
  ['parse', ['--model', model, '--format', 'glm'], 1, 'tokenizer.json has no token <tool_call>'],
] as const)('sift %s %j is refused in one line', async (command, args, code, message) => {
  const { status, stderr } = await runOn(command, { text: '{"messages":[]}', args });
  expect([status, stderr]).toEqual([code, expect.stringContaining(message)]);
  expect(stderr).not.toContain('    at ');
});

const functionSchema = z.object({ name: z.string(), arguments: z.string() });
const messageSchema = z.object({
  content: z.string(),
  reasoning_content: z.string(),
  tool_calls: z.array(z.object({ function: functionSchema })),
});

function callOf({ function: called }: { function: z.infer<typeof functionSchema> }): object {
  const read: unknown = JSON.parse(called.arguments);
  return { name: called.name, arguments: read };
}

function readCases() {
  const path = new URL('../../goldens/dsv32-encoding/cases.json', import.meta.url);
  return z
    .object({
      encode: z.array(
        z.object({ request: z.looseObject({}), thinking: z.boolean(), prompt: z.string() }),
      ),
      parse: z.array(
        z.object({ completion: z.string(), thinking: z.boolean(), message: z.looseObject({}) }),
      ),
    })
    .parse(JSON.parse(readFileSync(path, 'utf8')));
}
