/**
 * A model over ranks, as one model for each group: a group has caches of its own, and all of them
 * step together, because the experts of each compute the rows of all.
 */
import { strict as assert } from 'node:assert';
import type { Batch } from '../backend/batch.ts';
import type { Draw } from '../backend/draw.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import type { Layout } from '../model/mla-moe/shard.ts';
import type { ForwardObserver, Model, ModelGroups, ModelLimits } from '../model/model.ts';
import type { RankAnswer, RankCommand } from './rank-messages.ts';
import type { RankThreads } from './rank-threads.ts';

export interface RankedModelOptions extends Layout {
  readonly threads: RankThreads;
  readonly config: ModelConfig;
  readonly limits: ModelLimits;
  /** Blocks of each group's caches. */
  readonly blocks: number;
}

const emptyBatch: Batch = {
  tokens: new Int32Array(),
  positions: new Int32Array(),
  slots: new Int32Array(),
  sequences: new Int32Array(),
  blockTables: [],
};

export class RankedModel implements ModelGroups {
  /** One that steps alone has the others take part without rows. */
  readonly groups: readonly Model[];
  readonly #options: RankedModelOptions;

  constructor(options: RankedModelOptions) {
    this.#options = options;
    const numbers = Array.from({ length: options.dataParallel }, (_, group) => group);
    this.groups = numbers.map((group) => new GroupModel(this, group, options));
  }

  /** One step of all groups: a batch for each, null for those that have none. */
  forward(batches: readonly (Batch | null)[], observers: readonly ForwardObserver[] = []): void {
    const { tensorParallel, dataParallel, threads } = this.#options;
    assert(batches.length === dataParallel, 'every group has a batch or none');
    const commands = new Map<number, RankCommand>();
    for (let rank = 0; rank < threads.count; rank++) {
      const group = Math.floor(rank / tensorParallel);
      const { hidden, selection } = observers[group] ?? {};
      const observes = { hidden: hidden !== undefined, selection: selection !== undefined };
      const batch = batches[group] ?? emptyBatch;
      commands.set(rank, { kind: 'forward', batch, observes });
    }
    const answers = threads.run(commands);
    for (const [group, observer] of observers.entries()) {
      const answer = answers.get(group * tensorParallel);
      assert(answer?.kind === 'computed', 'a rank that computed says so');
      for (const { stage, states } of answer.observed.hidden) observer.hidden?.(stage, states);
      for (const { layer, rows } of answer.observed.selections) observer.selection?.(layer, rows);
    }
  }

  /** Has the ranks of a group do something with the rows of the last step; the group's answer. */
  ask(group: number, command: RankCommand): RankAnswer {
    const { tensorParallel, threads } = this.#options;
    const first = group * tensorParallel;
    const ranks = Array.from({ length: tensorParallel }, (_, i) => first + i);
    const answer = threads.run(new Map(ranks.map((rank) => [rank, command]))).get(first);
    assert(answer !== undefined, 'the first rank of a group answers');
    return answer;
  }
}

class GroupModel implements Model {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly limits: ModelLimits;
  readonly blocks: number;
  readonly draft = null;
  readonly #all: RankedModel;
  readonly #group: number;
  readonly #groups: number;

  constructor(all: RankedModel, group: number, options: RankedModelOptions) {
    this.vocabSize = options.config.vocabSize;
    this.contextLength = options.config.contextLength;
    this.limits = options.limits;
    this.blocks = options.blocks;
    this.#all = all;
    this.#group = group;
    this.#groups = options.dataParallel;
  }

  forward(batch: Batch, observer: ForwardObserver = {}): void {
    const alone = <T>(own: T, other: T): T[] =>
      Array.from({ length: this.#groups }, (_, group) => (group === this.#group ? own : other));
    this.#all.forward(alone<Batch | null>(batch, null), alone(observer, {}));
  }

  logits(rows: Int32Array): Float32Array {
    const answer = this.#all.ask(this.#group, { kind: 'logits', rows });
    assert(answer.kind === 'logits', 'a rank answers what it was asked');
    return answer.values;
  }

  sample(rows: Int32Array, draws: readonly Draw[]): (number | null)[] {
    const answer = this.#all.ask(this.#group, { kind: 'sample', rows, draws });
    assert(answer.kind === 'tokens', 'a rank answers what it was asked');
    return answer.tokens;
  }
}
