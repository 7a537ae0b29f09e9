/**
 * `npm run bench:gpu [-- part ...]`: the CUDA backend's hot ops at DeepSeek-V3.2's dimensions, on
 * random data; appended to results.jsonl. The ceilings that shares refer to are measured in the
 * same run; rates of other libraries are in the documents.
 */
import { Argument } from '@commander-js/extra-typings';
import { createProgram, runProgram } from '../../infra/program.ts';
import { UserError } from '../../infra/user-error.ts';
import { fewerHeads, sparseAttention } from './gpu-attention.ts';
import { measureCeilings } from './gpu-ceilings.ts';
import { denseAttention, densePrefillOfHeads, maskedAttention } from './gpu-dense.ts';
import { indexer } from './gpu-indexer.ts';
import { grouped, perHead, products } from './gpu-products.ts';
import { rowOps } from './gpu-rows.ts';
import { slice, streams } from './gpu-slice.ts';
import { tinyModel } from './gpu-tiny.ts';

const parts: Readonly<Record<string, () => Promise<void>>> = {
  ceilings: measureCeilings,
  attention: sparseAttention,
  'attention-heads': fewerHeads,
  dense: denseAttention,
  'dense-heads': densePrefillOfHeads,
  masked: maskedAttention,
  indexer,
  products,
  perHead,
  experts: grouped,
  rows: rowOps,
  'slice-sparse': () => slice('sparse'),
  'slice-dense': () => slice('dense'),
  streams,
  tiny: tinyModel,
};
const names = Object.keys(parts);
const program = createProgram('npm run bench:gpu --', 'measures the CUDA backend')
  .addArgument(new Argument('[parts...]', 'all if none is named').choices(names))
  .action(measure);
process.exitCode = await runProgram(program, process.argv.slice(2));

async function measure(wanted: readonly string[]): Promise<void> {
  const failed: string[] = [];
  for (const [name, run] of Object.entries(parts)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    try {
      await run();
    } catch (cause) {
      failed.push(name);
      console.error(`${name}:`, cause);
    }
  }
  if (failed.length > 0) throw new UserError(`these parts failed: ${failed.join(', ')}`);
}
