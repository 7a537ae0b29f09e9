/** Tokens drawn on the GPU: rows of logits stay there, and only the tokens come back (sample.cu). */
import assert from 'node:assert/strict';
import type { Tensor } from '../../backend.ts';
import { type Draw, weightScale } from '../../draw.ts';
import { Scratch } from '../runtime/device.ts';
import { f32Tensor } from '../handles.ts';
import type { OpContext } from '../op-context.ts';

const drawBytes = 40;
/** kTilesMax of 4,096 tokens in the kernel. */
const vocabularyMax = 256 * 4096;

export class Sampler {
  readonly #context: OpContext;
  readonly #draws: Scratch;
  readonly #tokens: Scratch;

  constructor(context: OpContext) {
    this.#context = context;
    this.#draws = new Scratch(context.device, 'the draws of a step');
    this.#tokens = new Scratch(context.device, 'the tokens of a step');
  }

  /** The tokens, and the word at `mark` as it is then; 0 without. */
  sample(
    logits: Tensor,
    draws: readonly Draw[],
    mark: number | null,
  ): { tokens: (number | null)[]; word: number } {
    const { device } = this.#context;
    const rows = draws.length;
    const { columns } = logits;
    const from = f32Tensor(logits, rows, columns);
    assert(columns <= vocabularyMax, `a vocabulary of ${columns} is too large to draw from`);
    const places = this.#draws.at(from.rows * drawBytes);
    const tokens = this.#tokens.at(from.rows * 4);
    const scale = weightScale(columns);
    device.send(places, pack(draws, scale));
    device.launch(device.kernel('sample', 'sample'), { grid: [rows, 1, 1], threads: 1024 }, [
      [from.at, from.stride, columns, places, tokens, scale],
    ]);
    const [{ buffer }, word] =
      mark === null
        ? [device.download(tokens, rows * 4), 0]
        : device.downloadWith(tokens, rows * 4, mark);
    const drawn = Array.from(new Int32Array(buffer), (token) => (token < 0 ? null : token));
    return { tokens: drawn, word };
  }
}

/** As the kernel's SampleDraw: four doubles and an i64. */
function pack(draws: readonly Draw[], scale: number): Float64Array {
  const values = new Float64Array(draws.length * 5);
  const counts = new BigInt64Array(values.buffer);
  draws.forEach(({ temperature, topP, minP, unit, topK }, i) => {
    values.set([temperature, topP, minP * scale, unit], i * 5);
    counts[i * 5 + 4] = BigInt(topK);
  });
  return values;
}
