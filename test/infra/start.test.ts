/** `npm start` as its user sees it: the whole system in one process, on free ports. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

test('it answers two questions, ends at Ctrl-C, and goes on with its data at the next start', async () => {
  const data = join(temporaryDirectory(), 'data');
  const first = startSystem({ EDGE_DATA: data });
  await first.saidLast();
  const text = first.text();
  expect(text).toContain('A  The access code of Rivoka is 48213.');
  expect(text).toContain('2646 prompt tokens (0 cached), 17 output tokens, $0.000748020');
  expect(text).toContain('A  Tamilon works at the harbor in Dobeku.');
  expect(text).toContain('2643 prompt tokens (2624 cached), 17 output tokens, $0.000085932');
  expect(text).toContain('The demo tenant has $4.999166048 left.');
  const [, url, key] = /curl (http:\S+)\/v1[\s\S]*?Bearer (sk-sift-demo\.\S+)'/.exec(text) ?? [];
  const balance = await fetch(`${url}/user/balance`, {
    headers: { authorization: `Bearer ${key}` },
  });
  expect(await balance.json()).toMatchObject({
    balance_infos: [{ total_balance: '4.999166048' }],
  });
  expect(await first.interrupt()).toBe(0);

  const second = startSystem({ EDGE_DATA: data });
  await second.saidLast();
  expect(second.text()).toContain('The demo tenant has $4.998332096 left.');
  expect(second.text()).toContain(`Bearer ${key}'`);
  const [, again] = /curl (http:\S+)\/v1/.exec(second.text()) ?? [];
  const schema = {
    type: 'object',
    properties: { port: { enum: ['Dobeku', 'Rivoka'] }, boats: { type: 'integer', maximum: 9 } },
    required: ['port', 'boats'],
    additionalProperties: false,
  };
  const ask = async (path: string, fields: object): Promise<unknown> => {
    const messages = [{ role: 'user', content: 'Which port has boats?' }];
    const answer = await fetch(`${again}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'sift-tiny', messages, max_tokens: 200, ...fields }),
    });
    return answer.json();
  };
  const fits = expect.stringMatching(/^\{\s*"port":\s*"(Dobeku|Rivoka)",\s*"boats":\s*-?\d+\s*\}$/);
  const response_format = { type: 'json_schema', json_schema: { name: 'port', schema } };
  expect(await ask('/v1/chat/completions', { response_format })).toMatchObject({
    choices: [{ message: { content: fits }, finish_reason: 'stop' }],
  });
  const output_config = { format: { type: 'json_schema', schema } };
  expect(await ask('/anthropic/v1/messages', { output_config })).toMatchObject({
    content: [{ type: 'text', text: fits }],
    stop_reason: 'end_turn',
  });
  expect(await second.interrupt()).toBe(0);
});

test('a port that is taken is one line', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void taken.close());
  await once(taken, 'listening');
  // A server that listens on TCP has an address with a port.
  const { port } = taken.address() as AddressInfo;
  const folder = temporaryDirectory();
  const edge = startSystem({ EDGE_DATA: join(folder, 'a'), PORT: String(port) });
  expect(await edge.exitCode()).toBe(1);
  expect(edge.text()).toMatch(new RegExp(`^port ${port} on 127.0.0.1 is in use; [^\\n]*\\n$`));
  const worker = startSystem({ EDGE_DATA: join(folder, 'b'), WORKER_PORT: String(port) });
  expect(await worker.exitCode()).toBe(1);
  expect(worker.text()).toMatch(new RegExp(`^port ${port} on 127.0.0.1 is in use; [^\\n]*\\n$`));
});

test('a data folder that cannot be made, and a damaged database, are named and left alone', async () => {
  const folder = temporaryDirectory();
  const file = join(folder, 'file');
  writeFileSync(file, 'not a folder');
  const unwritable = startSystem({ EDGE_DATA: join(file, 'data') });
  expect(await unwritable.exitCode()).toBe(1);
  expect(unwritable.text()).toContain(`the data folder ${join(file, 'data')} cannot be written`);

  const database = join(folder, 'directory.db');
  writeFileSync(database, 'no database at all, but longer than a header would be'.repeat(80));
  const before = readFileSync(database);
  const damaged = startSystem({ EDGE_DATA: folder });
  expect(await damaged.exitCode()).toBe(1);
  expect(damaged.text()).toContain(`the database ${database} cannot be opened`);
  expect(readFileSync(database)).toEqual(before);
});

function startSystem(env: Readonly<Record<string, string>>) {
  const system = spawn(process.execPath, ['infra/sift.ts', 'start', '--no-book'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PORT: '0', WORKER_PORT: '0', ...env },
  });
  onTestFinished(() => void system.kill('SIGKILL'));
  let said = '';
  for (const stream of [system.stdout, system.stderr]) {
    stream.on('data', (bytes: Buffer) => (said += bytes.toString()));
  }
  const exited = exitOf(system);
  return {
    text: () => said,
    exitCode: () => exited,
    /** Waits until the lines that say how to call it are out. */
    async saidLast(): Promise<void> {
      while (!said.includes('answer.usage')) {
        if (system.exitCode !== null) throw new Error(`it ended: ${said}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    interrupt(): Promise<number | null> {
      system.kill('SIGINT');
      return exited;
    },
  };
}

async function exitOf(process: ChildProcess): Promise<number | null> {
  const [code] = await once(process, 'close');
  return code;
}
