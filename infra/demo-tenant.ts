/**
 * A tenant to try the system with, made through the operator API as an operator would: the model
 * and its price, a tenant with $5 of credit, and a key that is kept beside the data. Safe to
 * repeat.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

export interface OperatorAccess {
  readonly url: string;
  readonly adminToken: string;
}

export interface DemoOptions {
  readonly edge: OperatorAccess;
  readonly model: {
    readonly id: string;
    readonly contextLength: number;
    readonly revision: string;
    readonly tokenizerId: string;
  };
  /** Readable by its user alone. */
  readonly keyFile: string;
}

export const demoTenant = 'demo';
/** The credit of the demo tenant, in nano-USD. */
const demoCredit = 5_000_000_000;
/** DeepSeek-V3.2's prices, in nano-USD per million tokens. */
const prices = { input_cached: 28_000_000, input: 280_000_000, output: 420_000_000 };

/** @returns an API key that works. */
export async function prepareDemoTenant(options: DemoOptions): Promise<string> {
  const { edge, model, keyFile } = options;
  await callAdmin(edge, 'POST', '/models', {
    id: model.id,
    context_length: model.contextLength,
    revision: model.revision.slice(0, 64),
    tokenizer: model.tokenizerId.slice(0, 64),
    owned_by: 'sift',
  });
  const query = `/prices?model=${encodeURIComponent(model.id)}`;
  const priced = (await callAdmin(edge, 'GET', query)) as { prices: unknown[] };
  if (priced.prices.length === 0) {
    await callAdmin(edge, 'POST', '/prices', { model: model.id, ...prices });
  }
  await callAdmin(
    edge,
    'POST',
    '/tenants',
    { id: demoTenant, name: 'Demo' },
    { conflictIsFine: true },
  );
  await callAdmin(edge, 'POST', `/tenants/${demoTenant}/credits`, {
    kind: 'granted',
    amount_nano_usd: demoCredit,
    source: 'demo',
    note: 'to try the system with',
  });

  const kept = existsSync(keyFile) ? readFileSync(keyFile, 'utf8').trim() : null;
  if (kept !== null && (await works(edge.url, kept))) return kept;
  const made = (await callAdmin(edge, 'POST', `/tenants/${demoTenant}/keys`, {
    label: 'demo',
  })) as {
    key: string;
  };
  writeFileSync(keyFile, `${made.key}\n`, { mode: 0o600 });
  return made.key;
}

/** The answer's shape is the operator API's own; /openapi.json describes it. */
export async function callAdmin(
  { url, adminToken }: OperatorAccess,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
  options: { conflictIsFine?: boolean } = {},
): Promise<unknown> {
  const response = await fetch(`${url}/admin${path}`, {
    method,
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  });
  if (!response.ok && !(response.status === 409 && options.conflictIsFine)) {
    throw new Error(
      `${method} /admin${path} answered ${response.status}: ${await response.text()}`,
    );
  }
  return response.json();
}

async function works(edgeUrl: string, key: string): Promise<boolean> {
  const response = await fetch(`${edgeUrl}/user/balance`, {
    headers: { authorization: `Bearer ${key}` },
  });
  await response.body?.cancel();
  return response.ok;
}
