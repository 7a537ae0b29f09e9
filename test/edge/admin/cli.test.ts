import { afterEach, beforeEach, expect, test } from 'vitest';
import { CliError, runCli } from '../../../edge/cli.ts';
import { mounts } from '../../../edge/edge.ts';
import { startHarness, testModel } from '../../support/edge-harness.ts';
import type { Harness } from '../../support/edge-harness.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness({ mounts });
});
afterEach(() => harness.close());

async function run(line: string, env: Record<string, string> = {}): Promise<string> {
  const printed: string[] = [];
  await runCli(line === '' ? [] : line.split(' '), {
    env: { EDGE_ADMIN_TOKEN: 'admin-token', ...env },
    fetch: async (url, init) => harness.app.request(String(url), init),
    print: (text) => void printed.push(text),
  });
  return printed.join('\n');
}

test('a tenant goes from creation to its audit', async () => {
  expect(await run('tenants create new --name New')).toContain('status: active');
  expect(await run('credits add new 12.50 --source i1')).toBe('credited: true');
  expect(await run('credits add new 12.50 --source i1')).toBe('credited: false');
  expect(await run('tenants show new')).toContain('balance.granted: 12.50 USD');
  const made = JSON.parse(await run('keys create new --scopes inference --json'));
  expect(made).toMatchObject({ scopes: ['inference'], limits: { requests_per_minute: null } });
  expect(await run('keys list new')).toContain(made.key_id);
  const limited = await run(`keys limit new ${made.key_id} --tokens-per-minute 9`);
  expect(limited).toContain('limits.tokens_per_minute: 9');
  expect(await run(`keys revoke new ${made.key_id}`)).toContain('status: revoked');
  expect(await run('entries list new --limit 1')).toContain('amount: 12.50 USD');
  expect(await run('corrections add new 1 --note typo -- -2.5')).toContain('amount: -2.50 USD');
  expect(await run('tenants suspend new')).toContain('status: suspended');
  expect(await run('prefixes --tenant new')).toContain('promised: 0');
  expect(await run('audit')).toMatch(/ok: true[\s\S]*total.granted: 20.00 USD/);
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
  expect(await run('prices list --model m2')).toContain('window.start_minute: 990');
  const added = await run('workers add vllm http://vllm.test --token-env T', { T: 'its-token' });
  expect(added).toContain('own_token: true');
  expect(harness.fleet.staticWorkers()[0]?.ownToken).toEqual({ bearer: 'its-token' });
  await expect(run('workers add vllm http://vllm.test --token-env T')).rejects.toThrow(CliError);
  expect(await run('workers remove vllm')).toContain('removed: true');
  expect(await run('workers drain worker-0')).toContain('draining: true');
  expect(await run('workers list')).toContain('state: draining');
  expect(await run('models list')).toContain(testModel);
});

test('what goes wrong is one sentence that helps', async () => {
  const cases: [string, RegExp, Record<string, string>?][] = [
    ['tenant create x', /no command 'tenant create x'[\s\S]*tenants create <tenant>/],
    ['tenants create', /usage: tenants create <tenant>/],
    ['tenants create a b', /usage: tenants create <tenant>/],
    ['tenants create a --colour red', /colour/],
    ['tenants create acme', /^There is a tenant acme already\.$/],
    ['credits add acme ten', /'ten' is no amount in dollars, such as 12\.50/],
    ['credits add acme 0.0000000001', /no amount/],
    ['credits add nobody 1', /There is no tenant nobody/],
    ['prices add m 1 1 1 --from soon', /'soon' is no time/],
    ['prices add m 1 1 1 --window 9-5', /'9-5' is no window/],
    ['audit', /EDGE_ADMIN_TOKEN is not set/, { EDGE_ADMIN_TOKEN: '' }],
    ['audit', /token is missing or wrong/, { EDGE_ADMIN_TOKEN: 'wrong' }],
  ];
  for (const [line, message, env] of cases) {
    const failed = run(line, env);
    await expect(failed).rejects.toThrow(CliError);
    await expect(failed).rejects.toThrow(message);
  }
});

test('an edge that is not there is named', async () => {
  const refused = runCli(['audit', '--url', 'http://127.0.0.1:1'], {
    env: { EDGE_ADMIN_TOKEN: 'x' },
    fetch,
    print: () => {},
  });
  await expect(refused).rejects.toThrow('no edge answers at http://127.0.0.1:1');
});

test('help lists every command, or explains one', async () => {
  const all = await run('');
  for (const name of ['tenants create', 'keys revoke', 'prices add', 'audit']) {
    expect(all).toContain(name);
  }
  expect(await run('prices add --help')).toMatch(/^prices add <model>/);
});

test('a number that is none is refused, and lifts no limit', async () => {
  await run('tenants limit acme --requests-per-minute 5');
  for (const slip of ['x', '5k', '1e999', '-1', '1.5']) {
    const line = (name: string) => run(`${name} --requests-per-minute=${slip}`);
    await expect(line('tenants limit acme')).rejects.toThrow('expected an integer');
    await expect(line('keys create acme')).rejects.toThrow('expected an integer');
  }
  expect(await harness.tenant.keys()).toHaveLength(1);
  const answer = await harness.post('/v1/chat/completions', {
    model: testModel,
    messages: [{ role: 'user', content: 'Hi.' }],
  });
  expect(answer.headers.get('x-ratelimit-limit-requests')).toBe('5');
  await expect(run('corrections add acme first 1 --note n')).rejects.toThrow(
    "'first' is no entry id",
  );
});

test('options may stand before the command', async () => {
  expect(await run('--url http://edge.test --json tenants list')).toContain('"id": "acme"');
});
