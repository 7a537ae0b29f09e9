/**
 * Tokens drawn on the GPU: rows of logits stay there, and only the tokens come back (sample.cu).
 */
import { strict as assert } from 'node:assert';
import type { Tensor } from '../../shapes.ts';
import { weightScale } from '../../draw.ts';
import type { Draw } from '../../draw.ts';
import type { SamplingOps } from '../../sampling.ts';
import { Scratch } from '../runtime/device.ts';
import { f32Tensor } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import type { CudaIndexer } from './indexer.ts';

const drawBytes = 40;
/** kTilesMax of 4,096 tokens in the kernel. */
const vocabularyMax = 256 * 4096;

export class CudaSampling implements SamplingOps {
  readonly context: OpContext;
  readonly #indexer: CudaIndexer;
  readonly #draws: Scratch;
  readonly #tokens: Scratch;

  constructor(context: OpContext, indexer: CudaIndexer) {
    this.context = context;
    this.#indexer = indexer;
    this.#draws = new Scratch(context.device, 'the draws of a step');
    this.#tokens = new Scratch(context.device, 'the tokens of a step');
  }

  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[] {
    const { device } = this.context;
    const rows = draws.length;
    const { columns } = logits;
    const from = f32Tensor(logits, rows, columns);
    assert(columns <= vocabularyMax, `a vocabulary of ${columns} is too large to draw from`);
    const places = this.#draws.at(from.rows * drawBytes);
    const tokens = this.#tokens.at(from.rows * 4);
    const scale = weightScale(columns);
    device.send(places, pack(draws, scale));
    device.launch(
      device.kernel('sample', 'sample'),
      { grid: [rows, 1, 1], threads: 1024 },
      {
        logits: from.at,
        stride: from.stride,
        vocab: columns,
        draws: places,
        tokens,
        scale,
      },
    );
    return Array.from(this.#read(tokens, rows), (token) => (token < 0 ? null : token));
  }

  /** The drawn tokens; fails where an index score of the step was NaN, which is read with them. */
  #read(tokens: number, rows: number): Int32Array {
    const { device } = this.context;
    const { nanFlag } = this.#indexer;
    if (nanFlag === null) return new Int32Array(device.download(tokens, rows * 4).buffer);
    const [{ buffer }, word] = device.downloadWith(tokens, rows * 4, nanFlag);
    this.#indexer.assertNoNan(word);
    return new Int32Array(buffer);
  }
}

/** The draws in the form of the kernel's SampleDraw: four doubles and an i64. */
function pack(draws: readonly Draw[], scale: number): Float64Array {
  const values = new Float64Array(draws.length * 5);
  const counts = new BigInt64Array(values.buffer);
  draws.forEach(({ temperature, topP, minP, unit, topK }, i) => {
    values.set([temperature, topP, minP * scale, unit], i * 5);
    counts[i * 5 + 4] = BigInt(topK);
  });
  return values;
}
