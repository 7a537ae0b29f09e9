/** Inputs for tests of a tenant, with everything that a test does not care about filled in. */
import { strict as assert } from 'node:assert';
import type { Price, Usage } from '../../../edge/money.ts';
import type { AdmitInput } from '../../../edge/tenant/admission-contract.ts';
import type { KeyLimits, KeyRecord } from '../../../edge/tenant/key-contract.ts';
import type { SettleInput } from '../../../edge/tenant/settlement-contract.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';

/** DeepSeek-V3.2's: 0.028, 0.28 and 0.42 USD per million tokens. */
export const price: Price = {
  id: 'price-1',
  inputCached: 28_000_000,
  inputUncached: 280_000_000,
  output: 420_000_000,
};

export const noLimits: KeyLimits = {
  requestsPerMinute: null,
  tokensPerMinute: null,
  concurrentRequests: null,
};

export const secretHash = 'ab'.repeat(32);

export const operator = { kind: 'operator' } as const;

export async function addKey(
  tenant: Tenant,
  keyId = 'key-1',
  limits: Partial<KeyLimits> = {},
): Promise<KeyRecord> {
  const made = await tenant.createKey(
    {
      keyId,
      secretHash,
      label: 'a test key',
      scopes: ['inference', 'read'],
      limits: { ...noLimits, ...limits },
    },
    operator,
  );
  assert(made.kind === 'done', 'the operator makes any key');
  return made.key;
}

export function admitInput(requestId: string, change: Partial<AdmitInput> = {}): AdmitInput {
  return {
    key: { tenant: 'tenant-1', keyId: 'key-1', secretHash },
    scope: 'inference',
    requestId,
    model: 'model-1',
    price,
    promptTokensMax: 1_000,
    outputTokensMax: 100,
    prefixChain: [],
    idempotency: null,
    ...change,
  };
}

/** The hold of `admitInput`: 1,000 x 280 + 100 x 420 nano-USD. */
export const sampleHold = 322_000;

export function usageOf(change: Partial<Usage> = {}): Usage {
  return { inputUncached: 0, inputCached: 0, outputText: 0, outputReasoning: 0, ...change };
}

export function settleInput(requestId: string, change: Partial<SettleInput> = {}): SettleInput {
  return {
    requestId,
    outcome: 'done',
    usage: usageOf({ inputUncached: 200, outputText: 50 }),
    worker: null,
    epoch: null,
    predictedCachedBytes: 0,
    confirmedChain: [],
    answer: null,
    ...change,
  };
}

/** The cost of `settleInput`: 200 x 280 + 50 x 420 nano-USD. */
export const sampleCost = 77_000;

/** A clock that a test moves, both ways. */
export function testClock(startMs = Date.UTC(2026, 0, 15, 12)) {
  let nowMs = startMs;
  return {
    nowMs: () => nowMs,
    advance: (byMs: number) => {
      nowMs += byMs;
    },
  };
}

/** A chain of so many chunks that begins with `name`; equal names share their chunks. */
export function chainOf(name: number, chunks: number): { key: string; bytes: number }[] {
  return Array.from({ length: chunks }, (_, index) => ({
    key: `${name.toString(16).padStart(8, '0')}${index.toString(16).padStart(24, '0')}`,
    bytes: 2_048 * (index + 1),
  }));
}
