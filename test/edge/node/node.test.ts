import { spawn } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { plainScript, startStubWorker } from '../../support/edge/edge-stub-worker.ts';
import type { StubWorker } from '../../support/edge/edge-stub-worker.ts';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';
import { announce, operatorOf, seedModel, seedModelAndWorker } from '../../support/edge/seed.ts';

const dollar = 1_000_000_000;
const secrets = {
  EDGE_KEY_SIGNING_SECRETS: 'signing-secret-of-the-tests',
  WORKER_TOKEN: 'worker-token-of-the-tests',
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-tests',
};

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function newFolder(): string {
  const folder = testFolder();
  closers.push(folder.remove);
  return folder.path;
}

async function startEdge(folder: string, options: Parameters<typeof startNode>[1] = {}) {
  const edge = await startNode(folder, { ...options, env: { ...secrets, ...options.env } });
  closers.push(() => edge.close());
  return { ...edge, operator: operatorOf(edge.url, secrets.EDGE_ADMIN_TOKEN) };
}

async function startStub(): Promise<StubWorker> {
  const stub = await startStubWorker({ token: secrets.WORKER_TOKEN, model: seedModel });
  closers.push(() => stub.close());
  return stub;
}

async function seed(edge: { url: string; operator: ReturnType<typeof operatorOf> }) {
  const stub = await startStub();
  const worker = await seedModelAndWorker({ ...edge, workerToken: secrets.WORKER_TOKEN }, stub);
  closers.push(() => worker.stop());
  return { stub, apiKey: await edge.operator.addTenant('acme', dollar) };
}

function ask(
  url: string,
  apiKey: string,
  more: object = {},
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${apiKey}`,
      'content-type': 'application/json',
      ...headers,
    },
    body: JSON.stringify({
      model: seedModel,
      messages: [{ role: 'user', content: 'Hi.' }],
      ...more,
    }),
  });
}

async function booksOf(operator: ReturnType<typeof operatorOf>) {
  // The audit route documents this form.
  return (await operator.call('GET', '/audit')) as {
    ok: boolean;
    findings: unknown[];
    total: { granted_nano_usd: number; held_nano_usd: number };
  };
}

test('a second start finds tenants, balances, keys, secrets and workers again', async () => {
  const folder = newFolder();
  const first = await startNode(folder);
  const operator = operatorOf(first.url, first.services.settings.adminToken);
  const { workerToken } = first.services.settings;
  const stub = await startStubWorker({ token: workerToken, model: seedModel });
  closers.push(() => stub.close());
  const worker = await seedModelAndWorker({ url: first.url, workerToken, operator }, stub);
  worker.stop();
  const apiKey = await operator.addTenant('acme', dollar);
  const paid = Number((await ask(first.url, apiKey)).headers.get('x-sift-cost-nano-usd'));
  expect(paid).toBeGreaterThan(0);
  await first.close();

  const second = await startNode(folder);
  closers.push(() => second.close());
  expect(second.services.settings).toEqual(first.services.settings);
  expect((await second.services.tenant('acme').balance()).granted).toBe(dollar - paid);
  // The worker has not announced itself again, and serves already.
  expect((await ask(second.url, apiKey)).status).toBe(200);
});

test('only the user of the process can read what the edge writes', async () => {
  const folder = newFolder();
  chmodSync(folder, 0o755);
  const edge = await startEdge(folder);
  await edge.operator.addTenant('acme', dollar);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  const files = ['secrets.env', 'directory.db', 'tenants/acme.db', 'tenants/acme.db-wal'];
  for (const file of files) expect(statSync(join(folder, file)).mode & 0o077).toBe(0);
  const kept = readFileSync(join(folder, 'secrets.env'), 'utf8');
  expect(kept).toMatch(/^EDGE_CACHE_SECRET=[\w-]{43}\nEDGE_RECEIPT_KEYS=[\w-]{43}\n$/);
});

test('a port in use, a folder that is a file and a damaged database are one sentence each', async () => {
  const folder = newFolder();
  const edge = await startEdge(folder);
  const port = new URL(edge.url).port;
  await expect(startNode(newFolder(), { env: { PORT: port } })).rejects.toThrow(
    `port ${port} on 127.0.0.1 is in use; set PORT or EDGE_HOST to another one`,
  );
  const occupied = join(newFolder(), 'file');
  writeFileSync(occupied, '');
  await expect(startNode(join(occupied, 'data'))).rejects.toThrow(/cannot be written .* EDGE_DATA/);
  const damaged = newFolder();
  writeFileSync(join(damaged, 'directory.db'), 'this is no database, and has not been for long');
  await expect(startNode(damaged)).rejects.toThrow(
    /directory\.db cannot be opened .*not a database/,
  );
});

test('a damaged tenant fails alone, with an answer that tells nothing of it', async () => {
  const folder = newFolder();
  const logged: unknown[] = [];
  const first = await startEdge(folder);
  const { apiKey } = await seed(first);
  await first.close();
  writeFileSync(join(folder, 'tenants/acme.db'), 'x'.repeat(8_192));
  const edge = await startEdge(folder, {
    log: (_, event, fields) => void logged.push({ event, ...fields }),
  });
  const other = await edge.operator.addTenant('other', dollar);
  const answer = await ask(edge.url, apiKey);
  expect(answer.status).toBe(503);
  expect(await answer.text()).not.toMatch(/acme|database|sqlite/i);
  // A line of another thread comes after the answer.
  await expect.poll(() => JSON.stringify(logged)).toMatch(/acme\.db cannot be opened/);
  expect((await ask(edge.url, other)).status).toBe(200);
});

test('more tenants than may be open at a time all keep their books', async () => {
  const edge = await startEdge(newFolder(), { env: { EDGE_OPEN_TENANTS: '2' } });
  const { apiKey: first } = await seed(edge);
  const names = Array.from({ length: 6 }, (_, index) => `tenant-${index}`);
  const keys = [first];
  for (const name of names) keys.push(await edge.operator.addTenant(name, dollar));
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, index) => ask(edge.url, keys[index % keys.length] ?? '')),
  );
  expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
  const costs = answers.map((answer) => Number(answer.headers.get('x-sift-cost-nano-usd')));
  const paid = costs.reduce((sum, cost) => sum + cost, 0);
  const books = await booksOf(edge.operator);
  expect(books).toMatchObject({ ok: true, total: { held_nano_usd: 0 } });
  expect(books.total.granted_nano_usd).toBe(7 * dollar - paid);
});

test('a stop lets a stream under way come to its end and settles it', async () => {
  const folder = newFolder();
  const edge = await startEdge(folder);
  const { stub, apiKey } = await seed(edge);
  stub.script = { ...plainScript, pauseMs: 60 };
  const answer = await ask(edge.url, apiKey, { stream: true });
  const text = answer.text();
  await edge.close();
  expect(await text).toContain('data: [DONE]');
  await expect(ask(edge.url, apiKey)).rejects.toThrow('fetch failed');
  const again = await startEdge(folder);
  expect(await booksOf(again.operator)).toMatchObject({ ok: true, total: { held_nano_usd: 0 } });
});

test('a stop lets an answer come to its end whose client will come back for it', async () => {
  const folder = newFolder();
  const edge = await startEdge(folder);
  const { stub, apiKey } = await seed(edge);
  stub.script = { ...plainScript, pauseMs: 60 };
  const key = { 'idempotency-key': 'once' };
  const answer = await ask(edge.url, apiKey, { stream: true }, key);
  await answer.body?.getReader().read();
  await answer.body?.cancel().catch(() => {});
  await edge.close();
  const later = await startEdge(folder);
  const again = await ask(later.url, apiKey, { stream: true }, key);
  expect(again.headers.get('idempotent-replayed')).toBe('true');
  expect(await again.text()).toContain('data: [DONE]');
  expect(stub.requests).toHaveLength(1);
});

test('after kill -9 in mid-stream no hold leaks, and the worker journal says what is paid', async () => {
  const folder = newFolder();
  const stub = await startStub();
  stub.script = {
    ...plainScript,
    promptTokens: 100,
    cachedTokens: 0,
    words: Array.from({ length: 400 }, () => ' word'),
    pauseMs: 10,
  };
  const child = spawn(process.execPath, ['infra/sift.ts', 'edge'], {
    env: { ...process.env, ...secrets, PORT: '0', EDGE_DATA: folder },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  closers.push(() => child.kill('SIGKILL'));
  const url = await new Promise<string>((resolve) => {
    child.stdout.on('data', (chunk) => {
      const [found] = /http:\/\/127\.0\.0\.1:\d+/.exec(String(chunk)) ?? [];
      if (found !== undefined) resolve(found);
    });
  });
  const operator = operatorOf(url, secrets.EDGE_ADMIN_TOKEN);
  const worker = await seedModelAndWorker(
    { url, workerToken: secrets.WORKER_TOKEN, operator },
    stub,
  );
  worker.stop();
  const apiKey = await operator.addTenant('acme', dollar);
  const key = { 'idempotency-key': 'once' };
  const streams = await Promise.all(
    [{}, {}, key].map((headers) => ask(url, apiKey, { stream: true }, headers)),
  );
  for (const stream of streams) await stream.body?.getReader().read();
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exited;
  await expect
    .poll(() => [...stub.records.values()].map((record) => record.status))
    .toEqual(['aborted', 'aborted', 'aborted']);

  const time = { nowMs: Date.now() };
  const edge = await startEdge(folder, { clock: { nowMs: () => time.nowMs } });
  const during = await booksOf(edge.operator);
  expect(during.ok).toBe(true);
  expect(during.total.held_nano_usd).toBeGreaterThan(0);
  // Whoever comes back is told at once what became of the answer.
  const again = await ask(edge.url, apiKey, { stream: true }, key);
  expect(again.status).toBe(409);
  expect(await again.text()).toContain('idempotency_no_answer');
  expect((await booksOf(edge.operator)).total.held_nano_usd).toBeLessThan(
    during.total.held_nano_usd,
  );
  await edge.close();
  time.nowMs += 11 * 60_000;
  const later = await startEdge(folder, { clock: { nowMs: () => time.nowMs } });
  await expect
    .poll(async () => (await later.services.tenant('acme').balance()).held, { timeout: 5_000 })
    .toBe(0);
  const generated = [...stub.records.values()].map((record) => record.output);
  // 0.28 and 0.42 USD per million tokens; each request is rounded by itself.
  const paid = generated.reduce((sum, output) => sum + 100 * 280 + output * 420, 0);
  const books = await booksOf(later.operator);
  expect(books).toMatchObject({ ok: true, findings: [] });
  expect(books.total.granted_nano_usd).toBe(dollar - paid);
});

test('health warns while the clock is behind the latest time known, over a restart too', async () => {
  const folder = newFolder();
  const time = { nowMs: Date.UTC(2026, 0, 15, 12) };
  const clock = { nowMs: () => time.nowMs };
  const first = await startEdge(folder, { clock });
  const healthOf = async ({ url }: { url: string }) => (await fetch(`${url}/health`)).json();
  await expect.poll(() => existsSync(join(folder, 'latest-time'))).toBe(true);
  expect(await healthOf(first)).toEqual({ status: 'ok' });
  time.nowMs -= 86_400_000;
  const warned = { status: 'ok', warnings: [expect.stringContaining('2026-01-15T12:00:00.000Z')] };
  expect(await healthOf(first)).toEqual(warned);
  await first.close();
  const again = await startEdge(folder, { clock });
  expect(await healthOf(again)).toEqual(warned);
  time.nowMs += 86_400_000;
  expect(await healthOf(again)).toEqual({ status: 'ok' });
});

test('workers are let in by their token alone', async () => {
  const edge = await startEdge(newFolder());
  const stub = await startStub();
  const wrong = announce({ url: edge.url, workerToken: 'some-other-token-of-length' }, stub);
  await expect(wrong).rejects.toThrow(/401/);
  const right = await announce({ url: edge.url, workerToken: secrets.WORKER_TOKEN }, stub);
  right.stop();
  const bad = await fetch(`${edge.url}/internal/workers/heartbeat`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secrets.WORKER_TOKEN}` },
    body: '{"id":"x"}',
  });
  expect(bad.status).toBe(409);
  expect(await bad.text()).toMatch(/url/);
});

test('a foreign engine is shown its own token, whoever added it, and no file but the fleet holds it', async () => {
  const folder = newFolder();
  const tokens = ['token-of-the-configured', 'token-of-the-added'] as const;
  const stubs = await Promise.all(
    tokens.map((token) => startStubWorker({ token, model: seedModel })),
  );
  closers.push(() => Promise.all(stubs.map((stub) => stub.close())));
  const [configured, added] = stubs;
  const logged: unknown[] = [];
  const edge = await startEdge(folder, {
    env: {
      EDGE_STATIC_WORKERS: `configured=${configured?.url}`,
      EDGE_STATIC_WORKER_TOKENS: `configured=${tokens[0]}`,
    },
    log: (_, event, fields) => void logged.push({ event, ...fields }),
  });
  const { stub, apiKey } = await seed(edge);
  const serve = async (id: string) => {
    const ready = async () => {
      const { workers } = (await edge.operator.call('GET', '/workers')) as {
        workers: { id: string; state: string }[];
      };
      return workers.find((worker) => worker.id === id)?.state;
    };
    await expect.poll(ready, { timeout: 10_000 }).toBe('ready');
    for (const other of ['stub', 'configured', 'added'].filter((each) => each !== id)) {
      await edge.operator
        .call('POST', `/workers/${other}/drain`, { draining: true })
        .catch(() => {});
    }
    await edge.operator.call('POST', `/workers/${id}/drain`, { draining: false });
    return (await ask(edge.url, apiKey)).status;
  };
  expect(await serve('configured')).toBe(200);
  await edge.operator.call('POST', '/workers', { id: 'added', url: added?.url, token: tokens[1] });
  expect(await serve('added')).toBe(200);
  expect(configured?.requests.at(-1)?.headers.authorization).toBe(`Bearer ${tokens[0]}`);
  expect(added?.requests.at(-1)?.headers.authorization).toBe(`Bearer ${tokens[1]}`);
  expect(stub.requests).toEqual([]);
  expect(JSON.stringify(logged)).not.toMatch(/token-of-the/);
  expect(statSync(join(folder, 'fleet.json')).mode & 0o777).toBe(0o600);
});
