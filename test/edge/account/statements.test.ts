/** Statements as an account's own admin key and its operator get them. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mounts } from '../../../edge/edge.ts';
import { statementSchema } from '../../../edge/statements/statement-schema.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
let adminKey: string;
beforeEach(async () => {
  edge = await startHarness({ mounts, scripts: [{ promptTokens: 100, cachedTokens: 64 }] });
  adminKey = await edge.addKey('acme', { scopes: ['admin'] });
});
afterEach(() => edge.close());

const ask = (path: string, key = adminKey) => edge.get(path, { authorization: `Bearer ${key}` });
const cost = 64 * 28 + 36 * 280 + 5 * 420;

async function use(): Promise<void> {
  await edge.post('/v1/chat/completions', {
    model: testModel,
    messages: [{ role: 'user', content: 'Hello.' }],
  });
  await edge.idle();
}

test('the statement adds up, and is what the reference says it is', async () => {
  await use();
  const answer = await ask('/v1/statements/2026-01');
  expect(answer.status).toBe(200);
  const statement = await answer.json();
  expect(statementSchema.safeParse(statement).error).toBeUndefined();
  expect(statement).toMatchObject({
    tenant: 'acme',
    is_complete: false,
    opening_balance: { amount_nano_usd: 0 },
    credits: [{ source: 'grant-acme', amount_nano_usd: 10_000_000_000 }],
    spend: [
      {
        model: testModel,
        key_label: 'test',
        requests: 1,
        input_cached_tokens: 64,
        cost_nano_usd: cost,
        saved_by_cache_nano_usd: 64 * 252,
      },
    ],
    closing_balance: { amount_nano_usd: 10_000_000_000 - cost },
    open_holds: { count: 0, amount_nano_usd: 0 },
  });
});

test('the operator gets the same statement', async () => {
  await use();
  const answer = await edge.get('/admin/tenants/acme/statements/2026-01', {
    authorization: 'Bearer admin-token',
  });
  expect(await answer.json()).toEqual(await (await ask('/v1/statements/2026-01')).json());
});

test('amounts of the CSV add up from the opening to the closing balance', async () => {
  await use();
  const answer = await ask('/v1/statements/2026-01?format=csv');
  expect(answer.headers.get('content-type')).toBe('text/csv; charset=utf-8');
  const [header = '', ...rows] = (await answer.text()).trimEnd().split('\r\n');
  const columns = header.split(',');
  const read = rows.map((row) => {
    const cells = row.split(',');
    return { section: cells[0], amount: Number(cells[columns.indexOf('amount_nano_usd')]) };
  });
  expect(read).toEqual([
    { section: 'opening_balance', amount: 0 },
    { section: 'credit', amount: 10_000_000_000 },
    { section: 'spend', amount: 0 - cost },
    { section: 'closing_balance', amount: 10_000_000_000 - cost },
  ]);
});

test('text of others is neither a formula in the CSV nor markup on the page', async () => {
  const note = `=HYPERLINK("http://x.example"),\n<script>alert(1)</script>`;
  for (const [index, begin] of ['', ' ', '\t', '＝'].entries()) {
    const credit = { kind: 'granted' as const, amountNanoUsd: 1, note: begin + note };
    await edge.tenant.credit({ ...credit, source: `@source-${index}` });
  }
  const csv = await (await ask('/v1/statements/2026-01?format=csv')).text();
  expect(csv).toContain(`,'@source-0,`);
  expect(csv.match(/"'[ \t＝]?=HYPERLINK\(""http:\/\/x\.example""\),\n<script>/g)).toHaveLength(4);
  const page = await ask('/v1/statements/2026-01?format=html');
  expect(page.headers.get('content-security-policy')).toBe(
    "default-src 'none'; style-src 'unsafe-inline'",
  );
  const text = await page.text();
  expect(text).toContain('&lt;script&gt;');
  expect(text).not.toMatch(/<script|<link|<img|@import|url\(/);
});

test('the page shows exact dollars, dark on white, and prints', async () => {
  await use();
  const page = await (await ask('/v1/statements/2026-01?format=html')).text();
  expect(page).toContain('9.999986028 USD');
  expect(page).toContain('color-scheme: light');
  expect(page).toContain('@media print');
});

test.each([
  ['/v1/statements/2026-02', 422, 'has not begun'],
  ['/v1/statements/2026-13', 422, 'expected a month'],
  ['/v1/statements/2026-1', 422, 'expected a month'],
  ['/v1/statements/last', 422, 'expected a month'],
  ['/v1/statements/2026-01?format=pdf', 422, 'format'],
  ['/v1/statements/2026-01?time_zone=Mars/Base', 422, 'time zone'],
  ['/v1/statements/2026-01?zone=UTC', 400, 'zone'],
])('%s is refused with %i', async (path, status, message) => {
  const answer = await ask(path);
  expect(answer.status).toBe(status);
  expect(JSON.stringify(await answer.json())).toContain(message);
});

test('a key without the scope admin sees no statement, nor does another tenant', async () => {
  expect((await edge.get('/v1/statements/2026-01')).status).toBe(403);
  await edge.addTenant('other');
  const otherKey = await edge.addKey('other', { scopes: ['admin'] });
  const statement = await (await ask('/v1/statements/2026-01', otherKey)).json();
  expect(statement.tenant).toBe('other');
});

test('a month ends at midnight of the zone that is asked for', async () => {
  edge.advance(Date.UTC(2026, 0, 31, 23, 30) - edge.services.clock.nowMs());
  await use();
  const requests = async (query: string) => {
    const { spend } = await (await ask(`/v1/statements/${query}`)).json();
    return spend.length;
  };
  edge.advance(3_600_000);
  expect(await requests('2026-01')).toBe(1);
  expect(await requests('2026-02')).toBe(0);
  expect(await requests('2026-01?time_zone=Europe/Berlin')).toBe(0);
  expect(await requests('2026-02?time_zone=Europe/Berlin')).toBe(1);
});
