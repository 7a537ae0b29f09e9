/**
 * Programs written for the clients that people have, against the whole system as `npm start` starts
 * it, with a model that thinks and calls tools. What each program was told it used is what its
 * tenant was billed, at the listed price.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { callAdmin } from '../../infra/demo-tenant.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { writeToolsModel } from '../support/worker/tools-model.ts';
import { clientUsageSchema } from './client-usage.ts';
import type { ClientUsage } from './client-usage.ts';
import { programs } from './programs.ts';
import type { Program } from './programs.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const adminToken = 'the-operator-of-the-clients-test';
const model = 'sift-tools';

const fact = 'The access code of Rivoka is 48213.';
/** In whole blocks of 64, of a prompt of some 600 tokens. */
const cachedTokens = 576;
/** Nano-USD per 1,000,000 tokens, as the demo's price list says. */
const price = { cached: 28_000_000, uncached: 280_000_000, output: 420_000_000 };
const readingSchema = z.strictObject({
  page: z.int().min(1).max(9),
  title: z.enum(['Letters', 'Manual']),
});
const factSchema = z.strictObject({ isKnown: z.boolean(), isNumber: z.boolean() });

const scenariosSchema = z.record(z.string(), z.record(z.string(), z.unknown()));
type Scenarios = z.infer<typeof scenariosSchema>;

let url: string;
let journal: string;
let stop: () => Promise<unknown>;

beforeAll(async () => {
  const folder = temporaryDirectory();
  writeToolsModel(join(folder, 'model'));
  journal = join(folder, 'data/worker/journal');
  const system = spawn(process.execPath, ['infra/sift.ts', 'start', '--no-book'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      PORT: '0',
      WORKER_PORT: '0',
      EDGE_DATA: join(folder, 'data'),
      EDGE_ADMIN_TOKEN: adminToken,
      SIFT_MODEL: join(folder, 'model'),
      SIFT_MODEL_ID: model,
      SIFT_BACKEND: 'cpu',
    },
  });
  const closed = once(system, 'close');
  stop = () => {
    system.kill('SIGINT');
    return closed;
  };
  const address = Promise.withResolvers<string>();
  let said = '';
  system.stdout.on('data', (bytes: Buffer) => {
    said += bytes.toString();
    const [, found] = /curl (http:\S+)\/v1/.exec(said) ?? [];
    if (found !== undefined) address.resolve(found);
  });
  void closed.then(() => address.reject(new Error(`the system ended: ${said}`)));
  url = await address.promise;
});
afterAll(() => stop?.());

/** A program asks some twenty questions, beside four others: that takes long on a slow machine. */
const programMsMax = 300_000;

test.concurrent.for(programs)(
  '$name',
  { timeout: programMsMax },
  async (program, { expect: expectHere }) => {
    const tenant = program.name.replaceAll(/[^a-z]+/g, '-').replace(/^-/, '');
    const said = await runProgram(program, await openTenant(tenant));
    const { finish } = program;

    expect(said['chat']).toMatchObject({ text: fact, ...(finish && { finish: finish.stop }) });
    expect(said['stream']).toMatchObject({ text: fact });
    const pieces = z.array(z.string()).parse(said['stream']?.['pieces']);
    expect(pieces.join('')).toBe(fact);
    expect(pieces.length).toBeGreaterThan(5);

    for (const calling of [said['tools'], said['streamedTools']]) {
      expect(calling).toMatchObject({ name: 'read_page', ...(finish && { finish: finish.call }) });
      readingSchema.parse(calling?.['input']);
    }
    expect(said['tools']).toMatchObject({ text: fact });
    // Agents show no arguments before they are whole.
    if (program.file !== 'openai-agents.ts') {
      const argumentPieces = z.array(z.string()).parse(said['streamedTools']?.['pieces']);
      expect(JSON.parse(argumentPieces.join(''))).toEqual(said['streamedTools']?.['input']);
      expect(argumentPieces.length).toBeGreaterThan(5);
    }
    if (program.file === 'anthropic.ts') {
      expect(said['toolRunner']).toMatchObject({ text: fact, turns: 2 });
    }
    if (program.file === 'openai-agents.ts') {
      expect(said['handoff']).toMatchObject({ text: fact, agent: 'Reader' });
    }

    if (program.provider === 'deepseek')
      expect(said['structured']?.['object']).toBeTypeOf('object');
    else factSchema.parse(said['structured']?.['object']);

    expect(said['reasoning']).toMatchObject({ text: fact });
    const thought = 'What is the access code of Rivoka?';
    if (program.showsReasoning) expect(said['reasoning']).toMatchObject({ reasoning: thought });

    expect(said['cached']?.['tokens']).toEqual([0, cachedTokens]);
    if (finish) {
      expect(said['limits']).toMatchObject({
        cut: [finish.length, 3],
        ...(finish.stopText !== null && {
          stopped: expect.arrayContaining([finish.stopText, 'I am a tiny ']),
        }),
      });
    }
    if (program.file === 'openai-responses.ts') {
      expect(said['stored']).toMatchObject({ isSame: true, roles: ['user'], gone: true });
      expect(said['stored']?.['cached']).toBeGreaterThanOrEqual(448);
      expect(said['stored']?.['counted']).toBeGreaterThan(5);
      const counts = z.array(z.int()).min(5).parse(said['limits']?.['logprobs']);
      expect(new Set(counts)).toEqual(new Set([2]));
    }
    if (program.file === 'openai.ts') {
      expect(said['limits']).toMatchObject({ choices: [0, 1, 2], repeats: true });
      // The logprobs are of every token, as many as were asked for.
      const counts = z.array(z.int()).min(5).parse(said['limits']?.['logprobs']);
      expect(new Set(counts)).toEqual(new Set([2]));
    }
    expect(said['errors']).toEqual(program.errors);
    const told = toldBy(said);
    // A poll belongs to its test, and these run side by side.
    await expectHere.poll(async () => (await billed(tenant)).length).toBe(told.length + 1);
    expectBilled(await billed(tenant), told);
    if (program.file === 'openai.ts' || program.file === 'ai.ts') {
      expect(said['chat']?.['cost']).toBe(String((await billed(tenant))[0]?.costNanoUsd));
    }
  },
);

const examples = readdirSync(join(root, 'docs/examples')).filter((name) => name.endsWith('.ts'));

test.concurrent.for(examples)(
  'the example %s streams an answer and what it used',
  { timeout: programMsMax },
  async (file, { expect: expectHere }) => {
    const tenant = `example-${file.replace('.ts', '')}`;
    const said = await runNode(join('docs/examples', file), [], await openTenant(tenant));
    expectHere(said).toMatch(/^I am /);
    expectHere(said.trimEnd().split('\n').at(-1)).toMatch(/^\{.*tokens/i);
    await expectHere.poll(async () => (await billed(tenant)).length).toBe(1);
  },
);

test('the example in Python can be compiled', async ({ skip }) => {
  const has = await promisify(execFile)('python3', ['--version']).catch(() => null);
  if (has === null) skip();
  const read = 'import ast, sys; ast.parse(open(sys.argv[1]).read())';
  const file = join(root, 'docs/examples/openai_client.py');
  await expect(promisify(execFile)('python3', ['-c', read, file])).resolves.toBeDefined();
});

/** @returns a key of a new tenant with credit. */
async function openTenant(id: string): Promise<string> {
  const edge = { url, adminToken };
  await callAdmin(edge, 'POST', '/tenants', { id, name: id });
  const credit = { kind: 'granted', amount_nano_usd: 1_000_000_000, source: id, note: 'test' };
  await callAdmin(edge, 'POST', `/tenants/${id}/credits`, credit);
  const made = await callAdmin(edge, 'POST', `/tenants/${id}/keys`, { label: 'test' });
  return z.object({ key: z.string() }).parse(made).key;
}

/** Runs a program and reads what each of its scenarios printed. */
async function runProgram({ file, provider }: Program, key: string): Promise<Scenarios> {
  const said = await runNode(join('test/clients', file), provider ? [provider] : [], key);
  const lines = said.trim().split('\n');
  return scenariosSchema.parse(Object.assign({}, ...lines.map((line) => JSON.parse(line))));
}

/** Returns what a program of this repository prints; it reaches nothing beyond this machine. */
async function runNode(file: string, args: readonly string[], key: string): Promise<string> {
  const loopbackOnly = new URL('loopback-only.ts', import.meta.url).href;
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', loopbackOnly, join(root, file), ...args],
    { env: { PATH: process.env['PATH'], SIFT_URL: url, SIFT_KEY: key, SIFT_MODEL: model } },
  );
  expect(stderr).toBe('');
  return stdout;
}

const entriesSchema = z.object({
  entries: z.array(
    z.object({
      kind: z.string(),
      request_id: z.string().nullable(),
      amount_nano_usd: z.int(),
      usage: z
        .object({
          input_uncached: z.int(),
          input_cached: z.int(),
          output_text: z.int(),
          output_reasoning: z.int(),
        })
        .nullable(),
    }),
  ),
});

type Billed = { readonly [Count in keyof ClientUsage]: number } & { readonly requestId: string };

/** The tenant's bills, oldest first. */
async function billed(tenant: string): Promise<Billed[]> {
  const path = `/tenants/${tenant}/entries`;
  const { entries } = entriesSchema.parse(await callAdmin({ url, adminToken }, 'GET', path));
  return entries.flatMap(({ kind, usage, amount_nano_usd: amount, request_id: requestId }) => {
    if (kind !== 'posted' || !usage || requestId === null) return [];
    const { input_uncached: uncached, input_cached: cached, output_reasoning: reasoning } = usage;
    const output = usage.output_text + reasoning;
    const input = uncached + cached;
    return [{ requestId, input, cached, output, reasoning, costNanoUsd: -amount }];
  });
}

const journalLineSchema = z.object({
  entry: z.object({
    id: z.string(),
    usage: z.object({ promptTokens: z.int(), cachedTokens: z.int(), outputTokens: z.int() }),
  }),
});

/** The last that the worker's journal says of a request. */
function journaled(requestId: string) {
  const files = readdirSync(journal, { recursive: true, encoding: 'utf8' });
  const lines = files
    .filter((file) => file.endsWith('.jsonl'))
    .flatMap((file) => readFileSync(join(journal, file), 'utf8').trim().split('\n'));
  const said = lines.map((line) => journalLineSchema.parse(JSON.parse(line)).entry);
  return said.findLast(({ id }) => id === requestId);
}

/**
 * The usage that the client was told of each request; JSON leaves out what clients do not report.
 */
function toldBy(said: Scenarios): Partial<ClientUsage>[] {
  const usages = Object.values(said).flatMap((scenario) =>
    z.array(clientUsageSchema).default([]).parse(scenario['usages']),
  );
  return JSON.parse(JSON.stringify(usages));
}

/** Each request as its client was told, and last the one that its client left. */
function expectBilled(entries: readonly Billed[], told: readonly Partial<ClientUsage>[]): void {
  expect(entries.slice(0, -1)).toMatchObject(told);
  const left = entries.at(-1);
  expect(left?.output).toBeGreaterThanOrEqual(3);
  expect(journaled(left?.requestId ?? '')).toMatchObject({
    usage: { promptTokens: left?.input, cachedTokens: left?.cached, outputTokens: left?.output },
  });
  for (const { input, cached, output, costNanoUsd } of entries) {
    const uncached = input - cached;
    const cost = cached * price.cached + uncached * price.uncached + output * price.output;
    expect(costNanoUsd).toBe(Math.ceil(cost / 1_000_000));
  }
}
