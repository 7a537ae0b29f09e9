/**
 * Draws the tokens of a step. Rows whose requests look at nothing but the row are drawn on the
 * backend, where the logits are, and only ids travel; rows with penalties, biases,
 * log-probabilities or a grammar are drawn on the host from a copy of their logits, by the same
 * rule to the bit. Nothing is changed here: the engine decides what becomes of the tokens
 * (`EngineLoop.step`).
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import type { Model } from '../model/model.ts';
import type { Generation } from './generation.ts';
import { uniform } from './random.ts';
import type { EngineError, EngineRequest, TokenLogprob } from './request.ts';
import { createSamplerScratch, drawsFromTheRow, sampleToken } from './sampler.ts';
import type { SamplerScratch } from './sampler.ts';
import type { ScheduledRows } from './scheduled-rows.ts';
import type { Sequence } from './sequence.ts';

/** The outcome of one row: a token, or the reason why its request fails. */
export type Sample =
  | { readonly kind: 'token'; readonly token: number; readonly logprob: TokenLogprob | null }
  | { readonly kind: 'failed'; readonly error: Pick<EngineError, 'kind' | 'message'> };

/** A row whose logits give the token that comes `ahead` tokens after the next one. */
interface SampleRow {
  readonly sequence: Sequence;
  readonly generation: Generation;
  readonly row: number;
  readonly ahead: number;
}

const noLogits: Sample = {
  kind: 'failed',
  error: { kind: 'internal', message: 'the model gave no valid logits for the next token' },
};

const unreadable: Sample = {
  kind: 'failed',
  error: {
    kind: 'invalid',
    message: 'the answer can be read in too many ways by the schema that it has to fit',
  },
};

export class StepSampler {
  readonly #model: Model;
  readonly #scratch: SamplerScratch;
  /** Samples that the backend drew, by their rows in the batch. */
  readonly #drawn = new Map<number, Sample>();

  constructor(model: Model) {
    this.#model = model;
    this.#scratch = createSamplerScratch(model.vocabSize);
  }

  /**
   * Draws what needs nothing but its row: all rows of the step at once. The other rows are drawn by
   * `sample`, one a sequence at a time, as each depends on the tokens before it.
   */
  begin(step: readonly ScheduledRows[], generationOf: (sequence: Sequence) => Generation): void {
    this.#drawn.clear();
    const rows = step.flatMap(({ sequence, sampleRows }) => {
      const generation = generationOf(sequence);
      if (!needsNoLogits(generation.request)) return [];
      return Array.from(sampleRows, (row, ahead) => ({ sequence, generation, row, ahead }));
    });
    for (const slice of this.#slices(rows)) this.#onBackend(slice);
  }

  /**
   * Gives the sample of row `turn` of the `sampleRows` of each member of `step`, all of which have
   * taken what their rows before it gave.
   */
  sample(
    step: readonly ScheduledRows[],
    turn: number,
    generationOf: (sequence: Sequence) => Generation,
  ): Sample[] {
    const samples = new Map<number, Sample>();
    const rows = step.map(({ sequence, sampleRows }) => {
      const generation = generationOf(sequence);
      return { sequence, generation, row: at(sampleRows, turn), ahead: 0 };
    });
    const onHost = rows.filter(({ generation }) => !needsNoLogits(generation.request));
    for (const slice of this.#slices(onHost)) this.#onHost(slice, samples);
    return rows.map(({ row }) => {
      const sample = samples.get(row) ?? this.#drawn.get(row);
      assert(sample !== undefined, 'every row that samples was drawn from');
      return sample;
    });
  }

  #slices(rows: readonly SampleRow[]): SampleRow[][] {
    const { logitRowsMax } = this.#model.limits;
    const slices: SampleRow[][] = [];
    for (let start = 0; start < rows.length; start += logitRowsMax) {
      slices.push(rows.slice(start, start + logitRowsMax));
    }
    return slices;
  }

  #onBackend(rows: readonly SampleRow[]): void {
    const draws = rows.map((each) => {
      const { sampling } = each.generation.request;
      return { ...sampling, unit: sampling.temperature === 0 ? 0 : unitOf(each) };
    });
    const tokens = this.#model.sample(rowNumbers(rows), draws);
    assert(tokens.length === rows.length, 'the model gives a token or null for every row');
    for (const [index, token] of tokens.entries()) {
      const sample = token === null ? noLogits : { kind: 'token' as const, token, logprob: null };
      this.#drawn.set(at(rows, index).row, sample);
    }
  }

  #onHost(rows: readonly SampleRow[], samples: Map<number, Sample>): void {
    const { vocabSize } = this.#model;
    const logits = this.#model.logits(rowNumbers(rows));
    for (const [index, each] of rows.entries()) {
      const row = logits.subarray(index * vocabSize, (index + 1) * vocabSize);
      samples.set(each.row, this.#drawFrom(row, each));
    }
  }

  #drawFrom(logits: Float32Array, row: SampleRow): Sample {
    const { generation, sequence } = row;
    const choice = generation.choiceOf(sequence);
    const allowed = choice.constraint?.allowed() ?? null;
    if (allowed === null && choice.constraint !== null) return unreadable;
    const context = { history: generation.historyOf(choice), allowed };
    const { sampling } = generation.request;
    const token = sampleToken(logits, sampling, context, () => unitOf(row), this.#scratch);
    if (token === null) return noLogits;
    return { kind: 'token', token, logprob: generation.tokenLogprob(logits, token) };
  }
}

/** Tells whether nobody sees or changes the logits between the model and the draw. */
function needsNoLogits({ logprobs, sampling, grammar }: EngineRequest): boolean {
  return logprobs === null && grammar === null && drawsFromTheRow(sampling);
}

function unitOf({ generation, sequence, ahead }: SampleRow): number {
  const position = sequence.outputTokens + ahead;
  return uniform({ seed: generation.seed + sequence.choice, position });
}

function rowNumbers(rows: readonly SampleRow[]): Int32Array {
  return Int32Array.from(rows, ({ row }) => row);
}
