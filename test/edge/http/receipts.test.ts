import { afterEach, describe, expect, test } from 'vitest';
import { receiptExample, receiptKeysExample } from '../../../edge/receipts/examples.ts';
import { signedReceiptSchema } from '../../../edge/receipts/receipt.ts';
import { receiptKeysSchema } from '../../../edge/receipts/receipt-keys.ts';
import { verifyReceipt } from '../../../edge/receipts/verify-receipt.ts';
import { startHarness, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge?.close());

const secretWords = 'Nobody may read this.';
const longText = 'Tell me of the sea, and of those who sail it. '.repeat(20);
const chat = {
  model: testModel,
  max_tokens: 10,
  messages: [{ role: 'user', content: secretWords }],
};

/** @returns the id of a request that is answered and settled. */
async function answered(options: HarnessOptions = {}): Promise<string> {
  edge = await startHarness(options);
  const response = await edge.post('/v1/chat/completions', chat);
  await response.text();
  await edge.idle();
  return response.headers.get('x-request-id') ?? '';
}

const keys = async () => {
  const response = await edge.app.request('/.well-known/sift-receipts.json');
  expect(response.headers.get('access-control-allow-origin')).toBe('*');
  return receiptKeysSchema.parse(await response.json()).keys;
};
const receiptOf = async (id: string) =>
  signedReceiptSchema.parse(await (await edge.get(`/v1/receipts/${id}`)).json());

test('a request has a receipt that everybody can verify, and that holds none of its words', async () => {
  const id = await answered({
    scripts: [{ words: ['My', ' secret'], promptTokens: 100, cachedTokens: 64 }],
  });
  const signed = await receiptOf(id);
  expect(await verifyReceipt(signed, await keys())).toEqual([]);
  const { receipt } = signed;
  expect(receipt).toMatchObject({
    account: 'acme',
    request_id: id,
    status: 'posted',
    outcome: 'done',
    model: testModel,
    revision: 'r1',
    worker: 'worker-0',
    prices: { id: testPrice.id, cached_input: 28_000_000, input: 280_000_000 },
    tokens: { cached_input: 64, output_text: 2 },
    cached_blocks: 1,
    not_billed_nano_usd: 0,
    admitted_at: '2026-01-15T12:00:00.000Z',
    corrections: [],
  });
  const { tokens, prices } = receipt;
  const sum =
    64 * prices.cached_input + tokens.input * prices.input + tokens.output_text * prices.output;
  expect(receipt.cost_nano_usd).toBe(Math.ceil(sum / 1_000_000));
  const entries = await edge.tenant.entries({ afterId: 0, limit: 100 });
  expect(entries.find(({ id: entry }) => entry === receipt.entry_id)?.requestId).toBe(id);
  expect(JSON.stringify(signed)).not.toMatch(/Nobody|secret/);
});

test('it is the same whenever it is asked for, and by the id of the answer too', async () => {
  const id = await answered();
  const texts = await Promise.all(
    [id, id, `chatcmpl-${id}`, `resp_${id}`].map(async (each) =>
      (await edge.get(`/v1/receipts/${each}`)).text(),
    ),
  );
  expect(new Set(texts).size).toBe(1);
});

test('what was changed in a receipt is told', async () => {
  const signed = await receiptOf(await answered());
  const { receipt } = signed;
  const cheaper = { ...receipt, cost_nano_usd: receipt.cost_nano_usd - 1 };
  const faults = await verifyReceipt({ ...signed, receipt: cheaper }, await keys());
  expect(faults).toEqual([
    expect.stringContaining('something in it was changed'),
    expect.stringMatching(/^its prices and counts make \d+ nano-USD; it states/),
  ]);
  const blocks = { ...receipt, cached_blocks: 7 };
  expect(await verifyReceipt({ ...signed, receipt: blocks }, await keys())).toHaveLength(2);
  const prices = { ...receipt.prices, output: Number.MAX_SAFE_INTEGER };
  const dear = { ...receipt, prices, tokens: { ...receipt.tokens, output_text: 2 ** 52 } };
  const overflow = await verifyReceipt({ ...signed, receipt: dear }, await keys());
  expect(overflow[1]).toContain('more than any number of nano-USD');
  expect(await verifyReceipt(signed, [])).toEqual([expect.stringContaining('not among the keys')]);
});

test('every member of a receipt is signed', async () => {
  const signed = await receiptOf(await answered());
  const list = await keys();
  for (const name of Object.keys(signed.receipt)) {
    const receipt = { ...signed.receipt, [name]: 'another' };
    const faults = await verifyReceipt({ ...signed, receipt } as typeof signed, list);
    expect(faults[0], name).toContain('something in it was changed');
  }
});

test('a receipt whose key was followed by a newer one still verifies, without its seed too', async () => {
  const signed = await receiptOf(await answered());
  const [old] = await keys();
  const newest = Buffer.alloc(32, 9).toString('base64url');
  await edge.close();
  for (const kept of [Buffer.alloc(32, 7).toString('base64url'), `public:${old?.x}`]) {
    edge = await startHarness({ settings: { receiptKeys: [newest, kept] } });
    const list = await keys();
    expect(list[1]).toEqual(old);
    expect(await verifyReceipt(signed, list)).toEqual([]);
    const id = (await edge.post('/v1/chat/completions', chat)).headers.get('x-request-id') ?? '';
    await edge.idle();
    expect((await receiptOf(id)).signature.key_id).toBe(list[0]?.kid);
    await edge.close();
  }
});

test('a request that was voided, and one that was corrected, say so', async () => {
  const id = await answered();
  const { entry_id: entryId, cost_nano_usd: cost } = (await receiptOf(id)).receipt;
  await edge.tenant.correct({ entryId, amountNanoUsd: 1, note: 'a kindness' });
  const { receipt } = await receiptOf(id);
  expect(receipt).toMatchObject({ cost_nano_usd: cost, corrections: [{ amount_nano_usd: 1 }] });
  await edge.close();
  const failed = await answered({ scripts: [{ fault: { kind: 'status', status: 503 } }] });
  const voided = await receiptOf(failed);
  expect(voided.receipt).toMatchObject({ status: 'voided', outcome: 'failed', cost_nano_usd: 0 });
  expect(await verifyReceipt(voided, await keys())).toEqual([]);
});

test('whatever becomes of requests, each receipt verifies, and together they are the bill', async () => {
  const words = Array.from({ length: 20 }, (_, index) => ` ${index}`);
  edge = await startHarness({ scripts: [{ words, pauseMs: 1 }] });
  const before = await edge.tenant.balance();
  const ids: string[] = [];
  const faults = [null, { kind: 'die', event: 5 }, { kind: 'status', status: 503 }] as const;
  for (const [index, fault] of [...faults, ...faults, ...faults].entries()) {
    edge.advance(2_000);
    edge.worker.script = { ...edge.worker.script, fault, cachedTokens: 64 * (index % 3) };
    const body = {
      ...chat,
      stream: index % 2 === 0,
      messages: [{ role: 'user', content: longText }],
    };
    const response = await edge.post('/v1/chat/completions', body);
    if (index % 4 === 0) await response.body?.cancel();
    else await response.text().catch(() => '');
    ids.push(response.headers.get('x-request-id') ?? '');
    await edge.idle();
  }
  const list = await keys();
  let billed = 0;
  for (const id of ids) {
    const signed = await receiptOf(id);
    expect(await verifyReceipt(signed, list)).toEqual([]);
    billed += signed.receipt.cost_nano_usd;
  }
  expect(billed).toBeGreaterThan(0);
  expect((await edge.tenant.balance()).granted).toBe(before.granted - billed);
});

test('a request that was admitted before revisions were recorded has a receipt without one', async () => {
  edge = await startHarness();
  const { admit } = edge.tenant;
  Object.assign(edge.tenant, {
    admit: ({ revision: _revision, ...input }: Parameters<typeof admit>[0]) => admit(input),
  });
  const response = await edge.post('/v1/chat/completions', chat);
  await edge.idle();
  const signed = await receiptOf(response.headers.get('x-request-id') ?? '');
  expect(signed.receipt.revision).toBeNull();
  expect(await verifyReceipt(signed, await keys())).toEqual([]);
});

describe('a receipt is refused', () => {
  const refused = async (id: string, headers: Record<string, string> = {}) => {
    const response = await edge.get(`/v1/receipts/${id}`, headers);
    const { error } = await response.json();
    return { status: response.status, code: error.code, message: error.message };
  };

  test.each(['nonsense', '0'.repeat(32), '%00', 'a/b'])('for the id %s', async (id) => {
    await answered();
    expect(await refused(id)).toMatchObject({ status: 404, code: 'not_found' });
  });

  test('to another account, and to a key that may not read', async () => {
    const id = await answered();
    const other = await edge.addTenant('other');
    expect((await refused(id, { authorization: `Bearer ${other}` })).status).toBe(404);
    const key = await edge.addKey('acme', { scopes: ['inference'] });
    expect((await refused(id, { authorization: `Bearer ${key}` })).status).toBe(403);
    expect((await edge.app.request(`/v1/receipts/${id}`)).status).toBe(401);
  });

  test('while the request is under way', async () => {
    edge = await startHarness({
      scripts: [{ words: [' 1', ' 2'], fault: { kind: 'stall', event: 2 } }],
    });
    const leave = new AbortController();
    const stream = { ...chat, stream: true };
    const response = await edge.post('/v1/chat/completions', stream, { signal: leave.signal });
    const id = response.headers.get('x-request-id') ?? '';
    expect(await refused(id)).toMatchObject({ status: 409, code: 'conflict' });
    leave.abort();
    await response.body?.cancel();
    await edge.idle();
    expect((await receiptOf(id)).receipt.outcome).toBe('aborted');
  });

  test('by an edge without a key to sign it', async () => {
    const id = await answered({ settings: { receiptKeys: [] } });
    const { status, message } = await refused(id);
    expect(status).toBe(404);
    expect(message).toContain('EDGE_RECEIPT_KEYS');
    expect(await keys()).toEqual([]);
  });
});

test("the reference's own example verifies", async () => {
  expect(await verifyReceipt(receiptExample, receiptKeysExample.keys)).toEqual([]);
});
