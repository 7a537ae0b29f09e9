/** A receipt and the key that verifies it, for the reference: a test verifies them. */
import type { ReceiptKey } from './receipt-keys.ts';
import type { SignedReceipt } from './receipt.ts';

export const receiptExample: SignedReceipt = {
  receipt: {
    version: 1,
    account: 'acme',
    key_id: '5d0e7b9c2f14',
    request_id: '5f0c7f0e9d1a4b7c8e2f6a3b1c0d9e8f',
    entry_id: 42,
    status: 'posted',
    outcome: 'done',
    model: 'sift-tiny',
    revision: 'r1',
    alias: null,
    worker: 'worker-1',
    prices: { id: 'p1', cached_input: 28_000_000, input: 280_000_000, output: 420_000_000 },
    tokens: { cached_input: 64, input: 12, output_text: 5, output_reasoning: 0 },
    cached_blocks: 1,
    block_tokens: 64,
    cache_miss_reason: null,
    cost_nano_usd: 7_252,
    not_billed_nano_usd: 0,
    admitted_at: '2026-12-01T12:00:00.000Z',
    settled_at: '2026-12-01T12:00:01.250Z',
    corrections: [],
  },
  signature: {
    algorithm: 'Ed25519',
    form: 'RFC 8785',
    key_id: 'UDDReOZl1ipXAfp9wYsm13sDBMK5og--QWdBjzuf6o4',
    value: 'JzgV4jx172UcgWfdOZ1Sgm9_ay4903GpjTg0_Iz5jcPwjJsc1wRiPVSFUSL8tYdrD-7YFeQKVg8Vw7yq_ndeCw',
  },
};

export const receiptKeysExample: { readonly keys: ReceiptKey[] } = {
  keys: [
    {
      kty: 'OKP',
      crv: 'Ed25519',
      x: 'iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w',
      kid: 'UDDReOZl1ipXAfp9wYsm13sDBMK5og--QWdBjzuf6o4',
      alg: 'EdDSA',
      use: 'sig',
    },
  ],
};
