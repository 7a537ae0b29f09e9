/** Addresses that workers may and may not announce. */
import { describe, expect, test } from 'vitest';
import { readNodeSettings } from '../../../edge/settings/read-settings.ts';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';

const refused: [string, string][] = [
  ['file:///etc/passwd', 'file:'],
  ['data:text/plain,x', 'data:'],
  ['ftp://w.example/', 'ftp:'],
  ['javascript:alert(1)', 'javascript:'],
  ['unix:/run/worker.sock', 'unix:'],
  ['ws://w.example', 'ws:'],
  ['blob:http://w.example/1', 'blob:'],
  ['http://user:word@w.example', 'password'],
  ['http://user@w.example', 'user name'],
  ['http://w.example/?x=1', 'query'],
  ['http://w.example/#x', 'fragment'],
  ['w.example:8788', 'w.example:'],
  ['/v1', 'absolute URL'],
  ['', 'url'],
  [`http://${'a'.repeat(3_000)}.example`, 'url'],
];

async function fleetWith(hosts: readonly string[]) {
  const fleet = new LocalFleet({ clock: manualClock(), hosts });
  const place = () =>
    fleet.place({
      requestId: 'r',
      model: 'tiny',
      promptTokens: 1,
      outputTokensMax: 1,
      prefixHits: [],
      exclude: [],
      turn: null,
    });
  return { fleet, place };
}

describe('an announcement', () => {
  test.each(refused)('of %s is refused by name and never placed on', async (url, name) => {
    const { fleet, place } = await fleetWith([]);
    const answer = await fleet.heartbeat(heartbeatOf({ id: 'w', url }));
    expect(answer).toMatchObject({ accepted: false });
    expect(answer.reason).toContain(name);
    const added = await fleet.addStatic({ id: 'w', url, ownToken: null });
    if (url.length < 2_000) expect(added).toMatchObject({ accepted: false });
    expect(await place()).toMatchObject({ kind: 'no-worker', reason: 'none-serves' });
    expect(await fleet.status()).toEqual([]);
  });

  test('of an address that an earlier version took is not brought back by a snapshot', async () => {
    const clock = manualClock();
    const announcement = {
      id: 'w',
      url: 'file:///etc/passwd',
      epoch: 1,
      state: 'ready',
      models: ['tiny'],
      static: false,
      hasJournal: true,
      noDiscountReason: null,
    } as const;
    const fleet = new LocalFleet({ clock, snapshot: { workers: [announcement], drained: [] } });
    expect(await fleet.status()).toEqual([]);
  });

  test.each([
    ['http://gpu-1.example:8788', true],
    ['https://gpu-1.example/', true],
    ['http://GPU-1.EXAMPLE', true],
    ['http://gpu-1.example.evil.example', false],
    ['http://10.0.0.5:8788', true],
    ['http://10.0.0.5', false],
    ['http://0x0a000005:8788', true],
    ['http://a.pool.example', true],
    ['http://a.b.pool.example:1', true],
    ['http://pool.example', false],
    ['http://evilpool.example', false],
    ['http://[::1]:8788', true],
    ['http://[::2]:8788', false],
    ['http://tls.example', false],
    ['https://tls.example', true],
    ['http://127.0.0.1:8788', false],
  ])('of %s is within the list of hosts: %s', async (url, accepted) => {
    const env = 'gpu-1.example, 10.0.0.5:8788,*.pool.example,[::1]:8788,tls.example:443';
    const { workerHosts } = readNodeSettings({ EDGE_WORKER_HOSTS: env });
    const { fleet } = await fleetWith(workerHosts);
    const answer = await fleet.heartbeat(heartbeatOf({ id: 'w', url }));
    expect(answer.accepted).toBe(accepted);
    if (!accepted) expect(answer.reason).toContain('EDGE_WORKER_HOSTS');
  });
});

describe('the settings', () => {
  test('name a pattern that is none', () => {
    for (const bad of ['http://gpu.example', 'a b', '*', 'x:y', 'a,,b', 'gpu.*.example']) {
      const read = () => readNodeSettings({ EDGE_WORKER_HOSTS: bad });
      expect(read).toThrow(/^EDGE_WORKER_HOSTS: /);
    }
  });

  test('refuse a configured worker outside the list, or with a password', () => {
    const outside = { EDGE_WORKER_HOSTS: 'a.example', EDGE_STATIC_WORKERS: 'b=http://b.example' };
    expect(() => readNodeSettings(outside)).toThrow(/EDGE_STATIC_WORKERS: b: .*EDGE_WORKER_HOSTS/);
    const withPassword = { EDGE_STATIC_WORKERS: 'b=http://u:p@b.example' };
    expect(() => readNodeSettings(withPassword)).toThrow(/EDGE_STATIC_WORKERS: b: .*password/);
  });
});
