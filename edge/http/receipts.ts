/** The receipts of requests, and the keys that verify them, which are open to everybody. */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import { signedReceiptSchema, toReceipt } from '../receipts/receipt.ts';
import { publishedKeys, receiptKeysSchema, signReceipt } from '../receipts/receipt-keys.ts';
import { receiptExample, receiptKeysExample } from '../receipts/examples.ts';
import type { Endpoint } from './endpoint.ts';
import { keyEndpoint } from './key-endpoint.ts';

export const receiptKeysPath = '/.well-known/sift-receipts.json';

const receipt = keyEndpoint(
  {
    method: 'get',
    path: '/v1/receipts/{id}',
    summary: 'A signed receipt of a request',
    description:
      "By the request's `x-request-id`, or the id of its answer. Anyone can verify it against " +
      `\`${receiptKeysPath}\`, and compute its cost from its prices and counts. It holds nothing ` +
      'of prompt or answer. Needs the scope read.',
    scope: 'read',
    params: z.object({ id: z.string() }),
    query: z.strictObject({}),
    answer: signedReceiptSchema.meta({ examples: [receiptExample] }),
  },
  async ({ c, services, key }) => {
    const [seed] = services.settings.receiptKeys;
    if (seed === undefined) {
      throw new ApiError('not_found', 'This edge signs no receipts: EDGE_RECEIPT_KEYS is not set.');
    }
    const id = c.req.param('id') ?? '';
    const request = await services.tenant(key.tenant).billedRequest(requestIdOf(id));
    if (request.kind === 'missing') {
      throw new ApiError('not_found', `The account has no billed request '${id}'.`, {
        param: 'id',
      });
    }
    if (request.kind === 'open') {
      throw new ApiError('conflict', `The request '${id}' is not settled yet; ask again.`, {
        headers: { 'retry-after': '1' },
      });
    }
    return await signReceipt(seed, toReceipt(key.tenant, request));
  },
);

/** Answers have the id of their request in their own. */
function requestIdOf(id: string): string {
  return id.replace(/^(chatcmpl-|cmpl-|msg_|resp_)/, '');
}

const keys: Endpoint = {
  method: 'get',
  path: receiptKeysPath,
  aliases: [],
  summary: 'Keys that verify receipts',
  description:
    'A JWK set, newest key first. It needs no API key. Keys stay listed after newer ones have ' +
    'taken their place.',
  params: null,
  query: null,
  headers: null,
  body: null,
  status: 200,
  content: { 'application/json': receiptKeysSchema.meta({ examples: [receiptKeysExample] }) },
  async run({ settings }, c) {
    c.header('cache-control', 'public, max-age=300');
    // Caches give it to web pages as well, whoever asked for it first.
    c.header('access-control-allow-origin', '*');
    return c.json({ keys: await publishedKeys(settings.receiptKeys) });
  },
};

export const receipts: readonly Endpoint[] = [receipt, keys];
