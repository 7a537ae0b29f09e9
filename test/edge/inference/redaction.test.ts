import { afterEach, expect, test, vi } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import type { StubFault } from '../../support/edge/edge-stub-worker.ts';

let edge: Harness;
afterEach(() => edge.close());

test('no log, no answer and no worker ever sees a key, its secret or what was said', async () => {
  const written: unknown[] = [];
  const spies = (['log', 'info', 'warn', 'error', 'debug'] as const).map((name) =>
    vi.spyOn(console, name).mockImplementation((...all) => void written.push(...all)),
  );
  edge = await startHarness();
  const answers: string[] = [];
  const said = 'the launch code is 0000';
  const body = { model: testModel, messages: [{ role: 'user', content: said }] };
  const faults: (StubFault | null)[] = [
    null,
    { kind: 'status', status: 500 },
    { kind: 'die', event: 2 },
    { kind: 'garbage', event: 2 },
    { kind: 'reject', status: 400, body: 'no' },
  ];
  const keys = [edge.apiKey, `${edge.apiKey.slice(0, -2)}xx`, 'sk-sift-malformed'];
  for (const fault of faults) {
    edge.worker.script = { ...edge.worker.script, fault };
    for (const key of keys) {
      for (const headers of [
        { authorization: `Bearer ${key}` },
        { 'x-api-key': key, authorization: '' },
      ]) {
        for (const sent of [body, { ...body, stream: true }, `{"key":"${key}`]) {
          const response = await edge.post('/v1/chat/completions', sent, { headers });
          answers.push(JSON.stringify([...response.headers]), await response.text());
        }
      }
    }
  }
  edge.tenant.admit = () => Promise.reject(new Error('broken'));
  answers.push(await (await edge.post('/v1/chat/completions', body)).text());
  await edge.idle();
  for (const spy of spies) spy.mockRestore();

  const seen = JSON.stringify([
    edge.logged,
    written.map(String),
    answers,
    edge.worker.requests.map(({ headers }) => headers),
  ]);
  expect(edge.logged.length).toBeGreaterThan(0);
  const [, , secret = '', mac = ''] = edge.apiKey.split('.');
  for (const hidden of [edge.apiKey, secret, mac, 'sk-sift-malformed']) {
    expect(seen.includes(hidden)).toBe(false);
  }
  expect(JSON.stringify(edge.logged)).not.toContain(said);
});
