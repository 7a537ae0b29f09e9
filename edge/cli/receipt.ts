/**
 * `sift receipt verify FILE` tells if a receipt is as an edge signed it, and if its cost follows
 * from its prices and counts. It needs no API key and no operator's token.
 */
import type { Command } from '@commander-js/extra-typings';
import { z } from 'zod';
import type { CommandModule } from '../../infra/program.ts';
import { environment } from '../../infra/settings.ts';
import { UserError } from '../../infra/user-error.ts';
import { receiptKeysPath } from '../http/receipts.ts';
import { formatUsd } from '../money-text.ts';
import { readTextSource } from '../node/text-source.ts';
import { signedReceiptSchema } from '../receipts/receipt.ts';
import { receiptKeysSchema } from '../receipts/receipt-keys.ts';
import { verifyReceipt } from '../receipts/verify-receipt.ts';
import { edgeUrlOf, reasonOf } from './edge-url.ts';

/** A receipt with a thousand corrections has 100 KB. */
const bytesMax = 1024 * 1024;
const fetchMsMax = 30_000;

export interface ReceiptContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly fetch: typeof fetch;
  readonly print: (text: string) => void;
  readonly input: NodeJS.ReadableStream;
}

/** The receipt could not be looked at: that says nothing against it. */
class NotVerified extends UserError {
  override readonly exitCode = 2;
}

export const configure: CommandModule['configure'] = (program) => {
  const env = environment();
  addReceiptCommands(program, { env, fetch, print: console.log, input: process.stdin });
};

export function addReceiptCommands(program: Command, context: ReceiptContext): void {
  program
    .command('verify')
    .description('check the signature of a receipt, and compute its cost again')
    .argument('<file>', 'the answer of GET /v1/receipts/{id}; - reads it from standard input')
    .option('--keys <file or URL>', `the keys (default: ${receiptKeysPath} of EDGE_URL)`)
    .addHelpText(
      'after',
      '\nEnds with 0 if the receipt is good, with 1 if it is not, with 2 if that cannot be told.',
    )
    .action(async (file, { keys: from }) => {
      const signed = parseAs(signedReceiptSchema, await readText(file, context), {
        source: file,
        kind: 'receipt',
      });
      const source = from ?? edgeUrlOf(context.env) + receiptKeysPath;
      const list = parseAs(receiptKeysSchema, await readText(source, context), {
        source,
        kind: 'list of keys',
      });
      const faults = await verifyReceipt(signed, list.keys);
      if (faults.length > 0) throw new UserError(`${file}: ${faults.join(`\n${file}: `)}`);
      const { receipt, signature } = signed;
      context.print(
        `${file}: request ${receipt.request_id} of ${receipt.account} on ${receipt.model} cost ` +
          `${formatUsd(receipt.cost_nano_usd)} USD, as computed again; signed by key ` +
          signature.key_id,
      );
    });
}

/** @throws NotVerified if it cannot be read. */
async function readText(source: string, context: ReceiptContext): Promise<string> {
  try {
    if (!/^https?:\/\//.test(source)) return await readTextSource(source, context.input);
    const signal = AbortSignal.timeout(fetchMsMax);
    const response = await context.fetch(source, { signal });
    if (!response.ok) throw new Error(`it answers ${response.status}`);
    return await response.text();
  } catch (cause) {
    throw new NotVerified(`${source} cannot be read: ${reasonOf(cause)}`, { cause });
  }
}

/** @throws NotVerified for what is nothing of the kind. */
function parseAs<Schema extends z.ZodType>(
  schema: Schema,
  json: string,
  { source, kind }: { readonly source: string; readonly kind: string },
): z.infer<Schema> {
  try {
    if (json.length > bytesMax) throw new Error(`it has more than ${bytesMax} characters`);
    const parsed = schema.safeParse(JSON.parse(json));
    if (parsed.success) return parsed.data;
    throw new Error(z.prettifyError(parsed.error));
  } catch (cause) {
    throw new NotVerified(`${source} is no ${kind}: ${reasonOf(cause)}`, { cause });
  }
}
