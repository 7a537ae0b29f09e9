/** Sets a runtime up so that it can answer, as an operator would: over its own HTTP API. */
import type { StubWorker } from './edge-stub-worker.ts';
import { heartbeatOf } from './fleet-of-runtime.ts';

export const seedModel = 'sift-test';
export const seedPrice = {
  inputCached: 28_000_000,
  inputUncached: 280_000_000,
  output: 420_000_000,
};

export interface Operator {
  /** @throws Error with the answer, unless it is a 2xx. */
  call(method: 'GET' | 'POST' | 'PATCH', path: string, body?: unknown): Promise<unknown>;
  /** A tenant of that name with a key; returns the key. */
  addTenant(id: string, balanceNanoUsd: number): Promise<string>;
}

export function operatorOf(url: string, adminToken: string): Operator {
  const call: Operator['call'] = async (method, path, body) => {
    const response = await fetch(`${url}/admin${path}`, {
      method,
      headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  };
  return {
    call,
    async addTenant(id, balanceNanoUsd) {
      await call('POST', '/tenants', { id });
      if (balanceNanoUsd > 0) {
        const credit = { kind: 'granted', amount_nano_usd: balanceNanoUsd, source: 'seed' };
        await call('POST', `/tenants/${id}/credits`, credit);
      }
      // The route's answer has the key in it.
      const created = (await call('POST', `/tenants/${id}/keys`, {})) as { key: string };
      return created.key;
    },
  };
}

/** The model, its price and a worker that keeps announcing itself until it is told to stop. */
export async function seedModelAndWorker(
  edge: { readonly url: string; readonly workerToken: string; readonly operator: Operator },
  stub: StubWorker,
): Promise<{ stop(): void }> {
  await edge.operator.call('POST', '/models', {
    id: seedModel,
    context_length: 65_536,
    revision: 'r1',
    tokenizer: 't1',
  });
  await edge.operator.call('POST', '/prices', {
    model: seedModel,
    input_cached: seedPrice.inputCached,
    input: seedPrice.inputUncached,
    output: seedPrice.output,
  });
  return announce(edge, stub);
}

export async function announce(
  edge: { readonly url: string; readonly workerToken: string },
  stub: StubWorker,
): Promise<{ stop(): void }> {
  const beat = async (): Promise<void> => {
    const response = await fetch(`${edge.url}/internal/workers/heartbeat`, {
      method: 'POST',
      headers: { authorization: `Bearer ${edge.workerToken}`, 'content-type': 'application/json' },
      body: JSON.stringify(heartbeatOf({ id: 'stub', url: stub.url, model: seedModel })),
    });
    if (!response.ok) throw new Error(`heartbeat: ${response.status} ${await response.text()}`);
  };
  await beat();
  // The edge may be gone before the timer is.
  const timer = setInterval(() => void beat().catch(() => {}), 4_000);
  return { stop: () => clearInterval(timer) };
}
