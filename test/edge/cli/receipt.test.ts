import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { addReceiptCommands } from '../../../edge/cli/receipt.ts';
import { receiptExample, receiptKeysExample } from '../../../edge/receipts/examples.ts';
import { createProgram, runProgram } from '../../../infra/program.ts';

let folder: string;
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'sift-receipt-'))));
afterEach(() => rmSync(folder, { recursive: true }));

const keysPath = '/.well-known/sift-receipts.json';

/** Runs the command beside an edge that publishes the example's keys. */
async function run(args: readonly string[], given: { stdin?: string; status?: number } = {}) {
  const printed: string[] = [];
  const errors: string[] = [];
  const asked: string[] = [];
  const program = createProgram('sift receipt', 'test').configureOutput({
    writeErr: (text) => void errors.push(text),
  });
  addReceiptCommands(program, {
    env: { EDGE_URL: 'http://edge.example:8787/' },
    fetch: async (url) => {
      asked.push(String(url));
      return Response.json(receiptKeysExample, { status: given.status ?? 200 });
    },
    print: (text) => void printed.push(text),
    input: Readable.from([Buffer.from(given.stdin ?? '')]),
  });
  const code = await runProgram(program, args);
  return { code, printed: printed.join('\n'), errors: errors.join(''), asked };
}

const fileOf = (name: string, value: unknown): string => {
  const path = join(folder, name);
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value));
  return path;
};

test('a good receipt is good by the keys of the edge, of a URL and of a file', async () => {
  const file = fileOf('receipt.json', receiptExample);
  const keys = fileOf('keys.json', receiptKeysExample);
  const byEdge = await run(['verify', file]);
  expect(byEdge).toMatchObject({ code: 0, errors: '' });
  expect(byEdge.asked).toEqual([`http://edge.example:8787${keysPath}`]);
  expect(byEdge.printed).toContain('of acme on sift-tiny cost 0.000007252 USD');
  const byUrl = await run(['verify', file, '--keys', `https://other.example${keysPath}`]);
  expect(byUrl).toMatchObject({ code: 0, asked: [`https://other.example${keysPath}`] });
  expect(await run(['verify', file, '--keys', keys])).toMatchObject({ code: 0, asked: [] });
  const piped = await run(['verify', '-', '--keys', keys], {
    stdin: JSON.stringify(receiptExample),
  });
  expect(piped.code).toBe(0);
});

test('a changed receipt ends with 1 and a line for each thing that differs', async () => {
  const receipt = { ...receiptExample.receipt, cost_nano_usd: 7_251 };
  const { code, errors, printed } = await run([
    'verify',
    fileOf('receipt.json', { ...receiptExample, receipt }),
  ]);
  expect(code).toBe(1);
  expect(printed).toBe('');
  expect(errors.trim().split('\n')).toEqual([
    expect.stringContaining('something in it was changed'),
    expect.stringContaining('make 7252 nano-USD; it states 7251 as billed'),
  ]);
});

test('a signature in another spelling of its bytes is not the signature', async () => {
  const { value } = receiptExample.signature;
  // The last character carries four bits of padding, which decoders drop.
  const other = `${value.slice(0, -1)}${String.fromCharCode(value.charCodeAt(value.length - 1) + 1)}`;
  expect(Buffer.from(other, 'base64url')).toEqual(Buffer.from(value, 'base64url'));
  for (const spelling of [other, `${value}AA`]) {
    const signature = { ...receiptExample.signature, value: spelling };
    const file = fileOf('receipt.json', { ...receiptExample, signature });
    expect((await run(['verify', file])).code).toBe(1);
  }
});

test.each([
  ['no JSON', 'receipt'],
  ['{}', 'receipt'],
  [JSON.stringify({ ...receiptExample, receipt: { ...receiptExample.receipt, more: 1 } }), 'more'],
  [JSON.stringify(receiptExample).replace('acme', '\\ud800'), 'half a character'],
  [JSON.stringify(receiptExample).replace('"version":1', '"version":2'), 'version'],
  [' '.repeat(1024 * 1024 + 1), 'more than 1048576 characters'],
])('what is no receipt ends with 2 and says so', async (text, words) => {
  const { code, errors } = await run(['verify', fileOf('receipt.json', text)]);
  expect(code).toBe(2);
  expect(errors).toContain('receipt.json is no receipt');
  expect(errors).toContain(words);
});

test('a file that is not there, and keys that are not to be had, end with 2', async () => {
  const missing = await run(['verify', join(folder, 'none.json')]);
  expect(missing).toMatchObject({ code: 2 });
  expect(missing.errors).toContain('none.json cannot be read');
  const file = fileOf('receipt.json', receiptExample);
  const gone = await run(['verify', file], { status: 404 });
  expect(gone).toMatchObject({ code: 2 });
  expect(gone.errors).toContain(`${keysPath} cannot be read: it answers 404`);
  const noKeys = await run(['verify', file, '--keys', file]);
  expect(noKeys).toMatchObject({ code: 2 });
  expect(noKeys.errors).toContain('is no list of keys');
  expect(await run(['verify'])).toMatchObject({ code: 2 });
});
