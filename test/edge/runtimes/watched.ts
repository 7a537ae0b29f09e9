/** Programs watch over a running edge, by its readiness and its metrics. */
import { expect, test } from 'vitest';
import type { RunningEdge } from './end-to-end.ts';

export function describeWatched(edgeOf: () => RunningEdge): void {
  test('an edge with a worker and records that can be written is ready', async () => {
    const { baseUrl } = edgeOf();
    const ready = async () => {
      const answer = await fetch(`${baseUrl}/ready`);
      return { code: answer.status, ...(await answer.json()) };
    };
    // Workers may be known a moment after the edge is up.
    await expect.poll(ready).toEqual({
      code: 200,
      status: 'ready',
      checks: { records: 'ok', workers: 'ok' },
    });
  });

  test('metrics are the operator alone to read', async () => {
    const { baseUrl, apiKey } = edgeOf();
    for (const token of ['', 'wrong', apiKey]) {
      const headers = { authorization: `Bearer ${token}` };
      expect((await fetch(`${baseUrl}/metrics`, { headers })).status).toBe(401);
    }
  });
}
