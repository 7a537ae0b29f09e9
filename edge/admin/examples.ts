/** Values that the operator's routes take and answer, as the reference shows them. */
import type { z } from 'zod';
import type {
  balanceSchema,
  currentPriceSchema,
  entrySchema,
  modelSchema,
  priceSchema,
  refusedWorkerSchema,
  tenantSchema,
  unsoldSchema,
  usageRowSchema,
  workerSchema,
} from './wire.ts';

const createdAtMs = 1_796_083_200_000;

export const tenantExample: z.infer<typeof tenantSchema> = {
  id: 'acme',
  name: 'Acme Inc.',
  status: 'active',
  weight: 1,
  limits: { requests_per_minute: 600, tokens_per_minute: null, concurrent_requests: 64 },
  created_at_ms: createdAtMs,
};

export const balanceExample: z.infer<typeof balanceSchema> = {
  granted_nano_usd: 2_500_000_000,
  topped_up_nano_usd: 25_000_000_000,
  held_nano_usd: 2_041_000,
};

const currentPrice = { input_cached: 28_000_000, input: 280_000_000, output: 420_000_000 };
export const currentPriceExample: z.infer<typeof currentPriceSchema> = {
  id: 'p1',
  ...currentPrice,
};
export const newPriceExample = {
  id: 'p1',
  model: 'sift-tiny',
  ...currentPrice,
  from_ms: createdAtMs,
};
export const priceExample: z.infer<typeof priceSchema> = { ...newPriceExample, window: null };

export const newModelExample = {
  id: 'sift-tiny',
  context_length: 131_072,
  revision: 'r1',
  tokenizer: 'sift-1',
};
export const modelExample: z.infer<typeof modelSchema> = {
  ...newModelExample,
  served_context_length: 131_072,
  owned_by: 'operator',
  created_at_ms: createdAtMs,
};

export const unsoldExample: z.infer<typeof unsoldSchema> = {
  model: 'sift-large',
  lacks: 'price',
  command: 'npm run --silent admin -- prices add sift-large CACHED_USD INPUT_USD OUTPUT_USD',
};

export const workerExample: z.infer<typeof workerSchema> = {
  id: 'worker-1',
  url: 'http://worker-1.example:8000',
  epoch: 3,
  state: 'ready',
  static: false,
  models: ['sift-tiny', 'sift-large'],
  context_lengths: { 'sift-tiny': 131_072, 'sift-large': 131_072 },
  unsold: [unsoldExample],
  tokens_in_flight: 4_860,
  requests_in_flight: 1,
  slots: 128,
  seen_at_ms: createdAtMs,
  no_discount_reason: null,
};
export const refusedWorkerExample: z.infer<typeof refusedWorkerSchema> = {
  id: 'worker-2',
  url: 'http://worker-2.example:8000',
  refused_because: 'the fleet is full',
  times: 4,
  last_at_ms: createdAtMs,
};

export const usageRowExample: z.infer<typeof usageRowSchema> = {
  day: '2026-12-01',
  model: 'sift-tiny',
  key_id: 'Jx3fQ0aZ',
  requests: 1_000,
  input_uncached: 12_000,
  input_cached: 64_000,
  output_text: 5_000,
  output_reasoning: 0,
  cost_nano_usd: 7_252_000,
  prefix_promised: 900,
  prefix_broken: 9,
};

/** A request that was billed, and the correction that gives its cost back. */
export const entryExample: z.infer<typeof entrySchema> = {
  id: 42,
  kind: 'posted',
  request_id: '5f0c7f0e9d1a4b7c8e2f6a3b1c0d9e8f',
  refers_to: 41,
  amount_nano_usd: -7_252,
  granted_nano_usd: -7_252,
  topped_up_nano_usd: 0,
  model: 'sift-tiny',
  key_id: 'Jx3fQ0aZ',
  price_id: 'p1',
  usage: { input_uncached: 12, input_cached: 64, output_text: 5, output_reasoning: 0 },
  predicted_cached_bytes: 256,
  note: null,
  created_at_ms: createdAtMs,
};
export const newCorrectionExample = {
  entry_id: 42,
  amount_nano_usd: 7_252,
  note: 'The answer was cut off.',
};
export const correctionExample: z.infer<typeof entrySchema> = {
  id: 43,
  kind: 'correction',
  request_id: null,
  refers_to: 42,
  amount_nano_usd: 7_252,
  granted_nano_usd: 7_252,
  topped_up_nano_usd: 0,
  model: 'sift-tiny',
  key_id: 'Jx3fQ0aZ',
  price_id: null,
  usage: null,
  predicted_cached_bytes: null,
  note: newCorrectionExample.note,
  created_at_ms: createdAtMs + 60_000,
};
