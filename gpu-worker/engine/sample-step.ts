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
  /** Collects the samples of this row's sequence. */
  readonly samples: Sample[];
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

  constructor(model: Model) {
    this.#model = model;
    this.#scratch = createSamplerScratch(model.vocabSize);
  }

  /** Gives the samples of each member of `step`, in the order of its `sampleRows`. */
  sample(
    step: readonly ScheduledRows[],
    generationOf: (sequence: Sequence) => Generation,
  ): (readonly Sample[])[] {
    const rows: SampleRow[] = [];
    const drawn = step.map(({ sequence, sampleRows }) => {
      const samples: Sample[] = [];
      for (const [ahead, row] of sampleRows.entries()) {
        rows.push({ sequence, generation: generationOf(sequence), row, ahead, samples });
      }
      return samples;
    });
    const { logitRowsMax } = this.#model.limits;
    for (let start = 0; start < rows.length; start += logitRowsMax) {
      const slice = rows.slice(start, start + logitRowsMax);
      this.#onBackend(slice.filter(({ generation }) => needsNoLogits(generation.request)));
      this.#onHost(slice.filter(({ generation }) => !needsNoLogits(generation.request)));
    }
    return drawn;
  }

  #onBackend(rows: readonly SampleRow[]): void {
    if (rows.length === 0) return;
    const draws = rows.map((each) => {
      const { sampling } = each.generation.request;
      return { ...sampling, unit: sampling.temperature === 0 ? 0 : unitOf(each) };
    });
    const tokens = this.#model.sample(rowNumbers(rows), draws);
    assert(tokens.length === rows.length, 'the model gives a token or null for every row');
    for (const [index, token] of tokens.entries()) {
      at(rows, index).samples.push(
        token === null ? noLogits : { kind: 'token', token, logprob: null },
      );
    }
  }

  #onHost(rows: readonly SampleRow[]): void {
    if (rows.length === 0) return;
    const { vocabSize } = this.#model;
    const logits = this.#model.logits(rowNumbers(rows));
    for (const [index, each] of rows.entries()) {
      const row = logits.subarray(index * vocabSize, (index + 1) * vocabSize);
      each.samples.push(this.#drawFrom(row, each));
    }
  }

  #drawFrom(logits: Float32Array, row: SampleRow): Sample {
    assert(row.ahead === 0, 'a grammar and penalties know the tokens up to the next one only');
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
