import { expect, test } from 'vitest';
import type { AdmitResult } from '../../../edge/tenant/admission-contract.ts';
import type { KeyLimits } from '../../../edge/tenant/key-contract.ts';
import {
  operator,
  addKey,
  admitInput,
  chainOf,
  noLimits,
  secretHash,
  settleInput,
  usageOf,
} from '../../support/edge/tenant-samples.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';

async function limited(limits: Partial<KeyLimits>) {
  const opened = openTestTenant();
  await addKey(opened.tenant, 'key-1', limits);
  await opened.tenant.credit({
    kind: 'topped-up',
    amountNanoUsd: 1e12,
    source: 'pay',
    note: '',
  });
  return opened;
}

const reasonOf = (result: AdmitResult) => (result.kind === 'refused' ? result.reason : result.kind);

test('unknown, wrong and revoked keys are refused alike', async () => {
  const { tenant } = await limited({});
  const key = admitInput('r').key;
  const unknown = await tenant.admit(admitInput('r1', { key: { ...key, keyId: 'nobody' } }));
  const wrong = await tenant.admit(
    admitInput('r2', { key: { ...key, secretHash: 'cd'.repeat(32) } }),
  );
  await tenant.updateKey('key-1', { status: 'revoked' }, operator);
  const revoked = await tenant.admit(admitInput('r3'));
  for (const result of [unknown, wrong, revoked]) {
    expect(result).toEqual({ kind: 'refused', reason: { kind: 'bad-key' }, limits: null });
  }
  expect(await tenant.authorize(key, 'read')).toEqual({ kind: 'bad-key' });
});

test('a key may do what its scopes say and nothing else', async () => {
  const { tenant } = await limited({});
  const { key } = admitInput('r');
  expect(await tenant.authorize(key, 'read')).toBeNull();
  expect(await tenant.authorize(key, 'admin')).toEqual({ kind: 'no-scope', scope: 'admin' });
  const result = await tenant.admit(admitInput('r1', { scope: 'admin' }));
  expect(reasonOf(result)).toEqual({ kind: 'no-scope', scope: 'admin' });
});

test('a revoked key is refused at the very next request, while its open request still settles', async () => {
  const { tenant } = await limited({});
  await tenant.admit(admitInput('r1'));
  await tenant.updateKey('key-1', { status: 'revoked' }, operator);
  expect(reasonOf(await tenant.admit(admitInput('r2')))).toEqual({ kind: 'bad-key' });
  expect((await tenant.settle(settleInput('r1'))).first).toBe(true);
  expect(await tenant.audit()).toEqual([]);
});

test('requests per minute: so many pass, the next is told how long to wait, and then passes', async () => {
  const { tenant, clock } = await limited({ requestsPerMinute: 3 });
  for (const id of ['r1', 'r2', 'r3'])
    expect((await tenant.admit(admitInput(id))).kind).toBe('admitted');
  const refused = await tenant.admit(admitInput('r4'));
  expect(refused).toMatchObject({
    reason: { kind: 'limit', limit: 'requests', of: 'key', retryAfterMs: 20_000 },
    limits: { requestsLimit: 3, requestsRemaining: 0, requestsResetMs: 60_000 },
  });
  clock.advance(19_999);
  expect((await tenant.admit(admitInput('r5'))).kind).toBe('refused');
  clock.advance(1);
  expect((await tenant.admit(admitInput('r6'))).kind).toBe('admitted');
});

test('tokens per minute count uncached input and output; what was reserved too much comes back', async () => {
  const { tenant } = await limited({ tokensPerMinute: 1_000 });
  const input = { promptTokensMax: 2_000, outputTokensMax: 400 };
  const first = await tenant.admit(admitInput('r1', input));
  expect(first).toMatchObject({ limits: { tokensLimit: 1_000, tokensRemaining: 100 } });
  expect(reasonOf(await tenant.admit(admitInput('r2', input)))).toMatchObject({
    limit: 'tokens',
    of: 'key',
    retryAfterMs: 48_000,
  });
  const usage = usageOf({
    inputUncached: 40,
    inputCached: 460,
    outputText: 50,
    outputReasoning: 10,
  });
  await tenant.settle(settleInput('r1', { usage }));
  expect(await tenant.admit(admitInput('r3', input))).toMatchObject({ kind: 'admitted' });
});

test('a request that turned out larger than estimated leaves a debt to wait for', async () => {
  const { tenant, clock } = await limited({ tokensPerMinute: 1_000 });
  const input = { promptTokensMax: 2_000, outputTokensMax: 0 };
  await tenant.admit(admitInput('r1', input));
  await tenant.settle(settleInput('r1', { usage: usageOf({ inputUncached: 2_000 }) }));
  expect(reasonOf(await tenant.admit(admitInput('r2', input)))).toMatchObject({
    limit: 'tokens',
    retryAfterMs: 90_000,
  });
  clock.advance(60_000);
  expect((await tenant.admit(admitInput('r3', input))).kind).toBe('refused');
});

test('what the prefix index knows is not reserved against tokens per minute', async () => {
  const { tenant } = await limited({ tokensPerMinute: 1_000 });
  const prompt = { promptTokensMax: 2_048, outputTokensMax: 0, prefixChain: chainOf(1, 1) };
  const cold = await tenant.admit(admitInput('r1', prompt));
  expect(cold).toMatchObject({ limits: { tokensRemaining: 488 } });
  const worker = { worker: 'w1', epoch: 1, workerUrl: 'http://w1' };
  await tenant.placed({ requestId: 'r1', ...worker, chain: chainOf(1, 1) });
  const warm = await tenant.admit(admitInput('r2', prompt));
  expect(warm).toMatchObject({ limits: { tokensRemaining: 488 } });
});

test('requests at a time: the next waits until one has ended, whichever way it ended', async () => {
  const { tenant } = await limited({ concurrentRequests: 2 });
  await tenant.admit(admitInput('r1'));
  await tenant.admit(admitInput('r2'));
  const busy = { kind: 'limit', limit: 'concurrency', of: 'key', retryAfterMs: 1_000 };
  expect(reasonOf(await tenant.admit(admitInput('r3')))).toEqual(busy);
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  expect((await tenant.admit(admitInput('r4'))).kind).toBe('admitted');
  expect(reasonOf(await tenant.admit(admitInput('r5')))).toEqual(busy);
  expect(await tenant.audit()).toEqual([]);
});

test("a tenant's limit holds over all of its keys, and the tighter one is told", async () => {
  const { tenant } = await limited({ requestsPerMinute: 100 });
  await addKey(tenant, 'key-2');
  await tenant.setLimits({ ...noLimits, requestsPerMinute: 2 });
  const second = { ...admitInput('r').key, keyId: 'key-2' };
  const first = await tenant.admit(admitInput('r1'));
  expect(first).toMatchObject({ limits: { requestsLimit: 2, requestsRemaining: 1 } });
  await tenant.admit(admitInput('r2', { key: second }));
  expect(reasonOf(await tenant.admit(admitInput('r3', { key: second })))).toMatchObject({
    limit: 'requests',
    of: 'tenant',
  });
});

test('a changed limit acts at the next request', async () => {
  const { tenant } = await limited({ requestsPerMinute: 1 });
  await tenant.admit(admitInput('r1'));
  expect((await tenant.admit(admitInput('r2'))).kind).toBe('refused');
  await tenant.updateKey('key-1', { limits: noLimits }, operator);
  expect((await tenant.admit(admitInput('r3'))).kind).toBe('admitted');
  await tenant.updateKey('key-1', { limits: { ...noLimits, requestsPerMinute: 0 } }, operator);
  expect((await tenant.admit(admitInput('r4'))).kind).toBe('refused');
});

test('a refusal takes nothing: no request, no token, no hold, no key', async () => {
  const { tenant } = await limited({ requestsPerMinute: 2, concurrentRequests: 1 });
  await tenant.admit(admitInput('r1'));
  const before = [await tenant.balance(), await tenant.keys()];
  const idempotency = { key: 'once', requestHash: 'h', afterEvent: 0 };
  for (let index = 0; index < 5; index++) {
    await tenant.admit(admitInput(`x${index}`, { idempotency }));
  }
  expect([await tenant.balance(), await tenant.keys()]).toEqual(before);
  await tenant.settle(settleInput('r1'));
  expect((await tenant.admit(admitInput('r2', { idempotency }))).kind).toBe('admitted');
});

test('a clock that goes back an hour stops nobody for longer than a minute', async () => {
  const { tenant, clock } = await limited({ requestsPerMinute: 1 });
  await tenant.admit(admitInput('r1'));
  clock.advance(-3_600_000);
  expect(reasonOf(await tenant.admit(admitInput('r2')))).toMatchObject({ retryAfterMs: 60_000 });
  clock.advance(59_999);
  expect((await tenant.admit(admitInput('r3'))).kind).toBe('refused');
  clock.advance(1);
  expect((await tenant.admit(admitInput('r4'))).kind).toBe('admitted');
});

test('a key record shows its limits and last use, never the secret', async () => {
  const { tenant, clock } = await limited({ tokensPerMinute: 5_000 });
  expect(await tenant.updateKey('nobody', { label: 'x' }, operator)).toBeNull();
  const renamed = await tenant.updateKey('key-1', { label: 'renamed' }, operator);
  expect(renamed?.kind === 'done' && renamed.key).toEqual({
    keyId: 'key-1',
    label: 'renamed',
    priority: 'normal',
    weight: 1,
    expiresAtMs: null,
    models: null,
    budget: null,
    status: 'active',
    scopes: ['inference', 'read'],
    limits: { ...noLimits, tokensPerMinute: 5_000 },
    createdAtMs: clock.nowMs(),
    lastUsedAtMs: null,
  });
  await tenant.admit(admitInput('r1'));
  expect((await tenant.keys())[0]?.lastUsedAtMs).toBe(clock.nowMs());
});

test.each([-1, 0.5, 2_000_000_000])('a limit of %s is refused', async (bad) => {
  const { tenant } = await limited({});
  await expect(tenant.setLimits({ ...noLimits, tokensPerMinute: bad })).rejects.toThrow(
    /a limit is/,
  );
  await expect(addKey(tenant, 'key-9', { requestsPerMinute: bad })).rejects.toThrow(/a limit is/);
  expect(await tenant.keys()).toHaveLength(1);
});

test('two keys cannot have one id', async () => {
  const { tenant } = await limited({});
  const first = await tenant.key('key-1');
  const input = { keyId: 'key-1', secretHash, label: 'a test key', limits: noLimits };
  const scopes = ['inference', 'read'] as const;
  const again = await tenant.createKey({ ...input, scopes }, operator);
  expect(again).toEqual({ kind: 'done', key: first });
  const changes = [{ secretHash: 'cd'.repeat(32) }, { label: 'other' }, { models: ['m'] }];
  for (const change of changes) {
    const other = await tenant.createKey({ ...input, scopes, ...change }, operator);
    expect(other).toEqual({ kind: 'refused', why: { kind: 'other-terms' } });
  }
  expect(await tenant.keys()).toEqual([first]);
});
