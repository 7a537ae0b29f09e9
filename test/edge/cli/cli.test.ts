import { afterEach, beforeEach, expect, test } from 'vitest';
import { runCli } from '../../../edge/cli/cli.ts';
import { mounts } from '../../../edge/edge.ts';
import { version } from '../../../infra/program.ts';
import { heartbeatOf } from '../../support/edge/fleet-of-runtime.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness({ mounts });
});
afterEach(() => harness.close());

async function tryRun(line: string, env: Record<string, string> = {}) {
  const printed: string[] = [];
  const errors: string[] = [];
  const code = await runCli(line === '' ? [] : line.split(' '), {
    env: { EDGE_ADMIN_TOKEN: 'admin-token', ...env },
    fetch: async (url, init) => harness.app.request(String(url), init),
    print: (text) => void printed.push(text),
    printError: (text) => void errors.push(text),
  });
  return { code, printed: printed.join('\n'), errors: errors.join('\n') };
}

/** Runs a command that works and returns what it printed. */
async function run(line: string, env: Record<string, string> = {}): Promise<string> {
  const { code, printed, errors } = await tryRun(line, env);
  expect({ line, code, errors }).toEqual({ line, code: 0, errors: '' });
  return printed;
}

test('a tenant goes from creation to its audit', async () => {
  expect(await run('tenants create new --name New')).toContain('status: active');
  expect(await run('credits add new 12.50 --source i1')).toBe('credited: true');
  expect(await run('credits add new 12.50 --source i1')).toBe('credited: false');
  expect(await run('tenants show new')).toContain('balance.granted: 12.50 USD');
  const made = JSON.parse(await run('keys create new --scopes inference --json'));
  expect(made).toMatchObject({ scopes: ['inference'], limits: { requests_per_minute: null } });
  expect(await run('keys list new')).toContain(made.key_id);
  expect(await run('tenants limit new --requests-per-minute 1')).toContain(
    'limits.requests_per_minute: 1',
  );
  for (const line of ['tenants show new', 'tenants list']) {
    expect(await run(line)).toContain('limits.requests_per_minute: 1');
  }
  const limited = await run(`keys limit new ${made.key_id} --tokens-per-minute 9`);
  expect(limited).toContain('limits.tokens_per_minute: 9');
  const shown = await run(`keys show new ${made.key_id}`);
  expect(shown).toContain('limits.tokens_per_minute: 9');
  expect(shown).toContain('limits.requests_per_minute: no limit');
  expect(await run(`keys priority new ${made.key_id} low`)).toContain('priority: low');
  expect(await run('keys create new --priority high')).toContain('priority: high');
  expect(await run('tenants weight new 3')).toContain('weight: 3');
  expect(await run('tenants show new')).toContain('weight: 3');
  expect(await run(`keys revoke new ${made.key_id}`)).toContain('status: revoked');
  expect(await run('entries list new --limit 1')).toContain('amount: 12.50 USD');
  expect(await run('corrections add new 1 -2.5 --note typo')).toContain('amount: -2.50 USD');
  expect(await run('tenants suspend new')).toContain('status: suspended');
  expect(await run('prefixes --tenant new')).toContain('promised: 0');
  expect(await run('audit')).toMatch(/ok: true[\s\S]*total.granted: 20.00 USD/);
  expect(await run('statement new 2026-01')).toMatch(/month: 2026-01[\s\S]*closing_balance/);
  expect(await run('statement new 2026-01 --format html')).toMatch(/^<!doctype html>/);
  expect(await run('export entries --format csv --tenant new')).toMatch(/^tenant,id,[\s\S]*typo/);
});

test('models, prices and workers are set and shown', async () => {
  expect(await run('models put m2 4096 r1 t1')).toContain('context_length: 4096');
  const price = JSON.parse(
    await run(
      'prices add m2 0.028 0.28 0.42 --window 16:30-00:30 --from 2027-01-01T00:00:00Z --json',
    ),
  );
  expect(price).toMatchObject({
    input_cached: 28_000_000,
    input: 280_000_000,
    output: 420_000_000,
    from_ms: Date.UTC(2027, 0, 1),
    window: { start_minute: 990, end_minute: 30 },
  });
  const prices = await run('prices list --model m2');
  expect(prices).toContain('input_cached: 0.028 USD per million tokens');
  expect(prices).toContain('output: 0.42 USD per million tokens');
  expect(prices).toContain('from: 2027-01-01T00:00:00Z');
  expect(prices).toContain('window: 16:30-00:30 UTC');
  expect(await run('models list')).toContain('price.input: 0.28 USD per million tokens');
  const added = await run('workers add vllm http://vllm.test --token-env T', { T: 'its-token' });
  expect(added).toContain('own_token: true');
  expect(harness.fleet.staticWorkers()[0]?.ownToken).toEqual({ bearer: 'its-token' });
  expect(await run('workers add vllm http://vllm.test --slots 12')).toContain('slots: 12');
  expect(harness.fleet.staticWorkers()).toMatchObject([{ id: 'vllm', slots: 12 }]);
  expect((await tryRun('workers add vllm http://vllm.test --slots many')).code).toBe(2);
  await harness.fleet.heartbeat({ id: 'stray', url: 'ftp://stray.test', engine: 'sift' });
  const listed = await run('workers list');
  expect(listed).toMatch(
    /id: stray .* refused_because: epoch: .* times: 1 {2}last_at: 2026-01-15T12:00:00Z/,
  );
  const unset = await tryRun('workers add vllm http://vllm.test --token-env T');
  expect(unset).toMatchObject({ code: 2, errors: expect.stringContaining('T is not set') });
  expect(await run('workers remove vllm')).toContain('removed: true');
  expect(await run('workers drain worker-0')).toContain('draining: true');
  expect(await run('workers list')).toContain('state: draining');
  expect(await run('models list')).toContain(testModel);
});

test('a model is given another name, and loses it', async () => {
  const given = await run(`models alias gpt-4o-mini ${testModel}`);
  expect(given).toContain('name: gpt-4o-mini');
  expect(await run('models list')).toContain('gpt-4o-mini');
  await run('models put m3 4096 r1 t1');
  const chain = JSON.parse(await run(`models alias best m3 ${testModel} --json`));
  expect(chain.models).toEqual(['m3', testModel]);
  expect(await tryRun('models alias best m4')).toMatchObject({
    errors: expect.stringContaining('There is no model m4. The nearest one is m3.'),
  });
  expect(await run('models unalias best')).toContain('deleted: true');
  expect(await run('models unalias gpt-4o-mini')).toContain('deleted: true');
  expect(await run('models list')).not.toContain('gpt-4o-mini');
});

test('no amount is nano-USD and no time is a number where people read', async () => {
  expect(await run('workers list')).toContain('seen_at: 2026-01-15T12:00:00Z');
  await run('credits add acme 1');
  const made = JSON.parse(await run('keys create acme --json'));
  const lines = [
    'tenants list',
    'tenants show acme',
    'keys list acme',
    `keys show acme ${made.key_id}`,
    'entries list acme',
    'models list',
    'prices list',
    'workers list',
    'prefixes',
    'audit',
  ];
  for (const line of lines) {
    const text = await run(line);
    expect([line, text]).toEqual([line, expect.not.stringMatching(/nano|_ms|\d{9,}|[{}[\]]/)]);
    // The exact integers are one flag away.
    expect(JSON.parse(await run(`${line} --json`))).toBeTypeOf('object');
  }
});

test('what a worker serves and nobody can use is listed with the command that adds it', async () => {
  const said = heartbeatOf({ id: 'w9' });
  const [model] = said.models;
  await harness.fleet.heartbeat({ ...said, models: [{ ...model, id: 'new' }] });
  const put = `models put new ${model?.context_length} ${model?.revision} ${model?.tokenizer}`;
  for (const line of ['workers list', 'models list']) {
    const text = await run(line);
    expect(text).toContain('nobody can use new, which a worker serves: it has no directory entry');
    expect(text).toContain(`npm run --silent admin -- ${put}`);
  }
  await run(put);
  expect(await run('workers list')).toContain('it has no price');
  await run('prices add new 0.028 0.28 0.42');
  expect(await run('workers list')).not.toContain('nobody can use');
});

test('what goes wrong is said in a line that helps', async () => {
  const cases: [string, RegExp, number, Record<string, string>?][] = [
    ['tenant create x', /unknown command 'tenant'\n\(Did you mean tenants\?\)/, 2],
    ['tenants craete x', /unknown command 'craete'\n\(Did you mean create\?\)/, 2],
    ['tenants create', /missing required argument 'tenant'/, 2],
    ['tenants create a b', /too many arguments/, 2],
    ['tenants create a --colour red', /unknown option '--colour'/, 2],
    ['tenants limit a --token-per-minute 5', /Did you mean --tokens-per-minute\?/, 2],
    ['tenants create acme', /^There is a tenant acme already\.$/, 1],
    ['tenants show nobody', /^There is no tenant nobody\. The nearest one is acme\.$/, 1],
    ['credits add acme ten', /'ten' is invalid.* an amount in dollars, such as 12\.50/, 2],
    ['credits add acme -5', /Expected an amount from 0/, 2],
    ['credits add acme 1 --kind gift', /granted, topped-up/, 2],
    ['credits add acme 0.0000000001', /an amount in dollars/, 2],
    ['checkout create acme 0.001 --success-url x --cancel-url x', /whole cents/, 2],
    ['credits add nobody 1', /^There is no tenant nobody\. The nearest one is acme\.$/, 1],
    ['keys create acme --scopes inference,write', /'write' is no scope; there are inference/, 2],
    ['prices add m 1 1 1 --from soon', /Expected a time with its zone/, 2],
    ['prices add m 1 1 1 --from 2026-02-30T00:00:00Z', /Expected a time with its zone/, 2],
    ['prices add m 1 1 1 --from 2026-12-01T00:00', /Expected a time with its zone/, 2],
    ['prices add m 1 1 1 --window 9-5', /Expected a window/, 2],
    ['export usage --from 2026-02-30', /Expected a day/, 2],
    ['statement acme 2026-13', /Expected a month, such as 2026-11/, 2],
    ['statement acme 2026-01 --time-zone Mars', /time zone such as Europe\/Berlin/, 1],
    ['export usage --format xml', /jsonl, csv/, 2],
    ['audit --url edge', /Expected a URL/, 2],
    ['audit', /EDGE_ADMIN_TOKEN is not set; .* secrets\.env/, 1, { EDGE_ADMIN_TOKEN: '' }],
    ['audit', /does not know this EDGE_ADMIN_TOKEN; .* secrets\.env/, 1, { EDGE_ADMIN_TOKEN: 'x' }],
  ];
  for (const [line, message, code, env] of cases) {
    const failed = await tryRun(line, env);
    expect({ line, ...failed }).toEqual({
      line,
      code,
      printed: '',
      errors: expect.stringMatching(message),
    });
    expect(failed.errors).not.toMatch(/^\s+at /m);
  }
});

test('an edge that is not there, or is none, is named', async () => {
  const ask = async (url: string, answer: typeof fetch) => {
    const errors: string[] = [];
    const code = await runCli(['audit', '--url', url], {
      env: { EDGE_ADMIN_TOKEN: 'x' },
      fetch: answer,
      print: () => {},
      printError: (text) => void errors.push(text),
    });
    return [code, ...errors];
  };
  const refused = 'no edge answers at http://127.0.0.1:9 (connect ECONNREFUSED 127.0.0.1:9)';
  expect(await ask('http://127.0.0.1:9/', (...call) => fetch(...call))).toEqual([
    1,
    expect.stringContaining('no edge answers at http://127.0.0.1:9 ('),
  ]);
  const cause = new Error('connect ECONNREFUSED 127.0.0.1:9');
  const failing = async () => Promise.reject(new TypeError('fetch failed', { cause }));
  expect(await ask('http://127.0.0.1:9', failing)).toEqual([1, expect.stringContaining(refused)]);
  const page = async () => new Response('<html>', { status: 404 });
  expect(await ask('http://web.test', page)).toEqual([
    1,
    'http://web.test answered 404, which no edge of sift does',
  ]);
});

test('every command and every group explains itself and says its version', async () => {
  const all = await run('--help');
  const groups = [...all.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1] ?? '');
  expect(groups).toContain('tenants');
  const lines = [''];
  for (const group of groups.filter((name) => name !== 'help')) {
    lines.push(group);
    const inside = (await run(`${group} --help`)).split('Commands:')[1] ?? '';
    const names = [...inside.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1] ?? '');
    lines.push(...names.filter((name) => name !== 'help').map((name) => `${group} ${name}`));
  }
  expect(lines.length).toBeGreaterThan(30);
  for (const line of lines) {
    const asked = (flag: string) => run(`${line} ${flag}`.trim());
    expect(await asked('--help')).toContain(`Usage: sift admin ${line}`.trim());
    expect(await asked('-h')).toContain('Usage: ');
    expect(await asked('--version')).toBe(version);
  }
});

test('a command that is missing is answered with the list', async () => {
  for (const line of ['', 'tenants']) {
    const { code, printed, errors } = await tryRun(line);
    expect([code, printed]).toEqual([2, '']);
    expect(errors).toContain('Commands:');
  }
});

test('a number that is none is refused, and lifts no limit', async () => {
  await run('tenants limit acme --requests-per-minute 5');
  for (const slip of ['x', '5k', '1e999', '-1', '1.5']) {
    for (const name of ['tenants limit acme', 'keys create acme']) {
      const refused = await tryRun(`${name} --requests-per-minute=${slip}`);
      expect(refused).toMatchObject({ code: 2, errors: expect.stringContaining('an integer') });
    }
  }
  expect(await harness.tenant.keys()).toHaveLength(1);
  const answer = await harness.post('/v1/chat/completions', {
    model: testModel,
    messages: [{ role: 'user', content: 'Hi.' }],
  });
  expect(answer.headers.get('x-ratelimit-limit-requests')).toBe('5');
  const { code, errors } = await tryRun('corrections add acme first 1 --note n');
  expect([code, errors]).toEqual([2, expect.stringContaining("argument 'entry-id'")]);
});

test('options may stand before the command', async () => {
  expect(await run('--url http://edge.test --json tenants list')).toContain('"id": "acme"');
});
