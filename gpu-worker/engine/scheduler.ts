/**
 * Decides what each step computes: continuous batching under one budget of tokens.
 *
 * - Decodes come first, oldest first, one token each; prefill chunks share what is left. A step
 *   that decodes may have a smaller budget, because all of its answers wait for its prompts.
 * - Order between fair scopes (tenants) goes by credit: each step every scope with work earns an
 *   even share of the tokens that the step computes and pays for its own. The scope with the
 *   greatest credit prefills next; within a scope it is first come, first served. Credit stays
 *   within `creditStepsMax` steps either way, so neither a long idle time nor a long monopoly
 *   weighs longer than that. A scope that comes new has a step's worth: it goes before those that
 *   have had their share, and after one that has waited for its own.
 * - A sequence starts when the blocks of all its known tokens are available beside those promised
 *   to the running ones. One that doesn't fit closes admission for the step: nobody overtakes it.
 * - A scope that has nothing running may take the place of a scope that runs two or more, also
 *   where another scope's sequence waits for a place: that one has others running.
 * - When decoding runs out of blocks, the youngest sequence of the scope with the least credit is
 *   preempted; it waits again, and computes again what the prefix cache doesn't keep.
 * - The oldest running sequence is never preempted. It alone can reach every block, so it ends;
 *   and only an older one can take its part, so some sequence always ends.
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import type { BlockManager } from './block-manager.ts';
import { blocksFor } from './block-manager.ts';
import { scheduledRows, scoredCount } from './scheduled-rows.ts';
import type { ScheduledRows } from './scheduled-rows.ts';
import type { Sequence } from './sequence.ts';

const creditStepsMax = 4;

export interface SchedulerLimits {
  /** Tokens of one step, decode and prefill together. */
  readonly stepTokensMax: number;
  /** The same of a step in which some sequence decodes. */
  readonly mixedTokensMax: number;
  /** Sequences that run at once. */
  readonly sequencesMax: number;
  /** Rows of prompts that one step scores (prompt logprobs). */
  readonly scoredRowsMax: number;
}

/** The sequences in flight of one fair scope: of a tenant, say. */
interface Scope {
  readonly name: string;
  /** Oldest first. */
  readonly waiting: Sequence[];
  /** Choices that wait for the first of their request to have its prompt computed. */
  held: number;
  running: number;
  /** Tokens of service that the others had more than this one. */
  credit: number;
}

/** The part of the step being planned that is still to be given away. */
interface Budget {
  tokens: number;
  scoredRows: number;
  /** Says which scopes may start sequences: `idle` are those that have nothing running. */
  admits: 'all' | 'idle' | 'none';
}

export class Scheduler {
  readonly #blocks: BlockManager;
  readonly #limits: SchedulerLimits;
  readonly #scopes = new Map<string, Scope>();
  /** Oldest first. */
  readonly #running: Sequence[] = [];
  #waitingCount = 0;
  #waitingTokens = 0;
  #step = 0;
  preemptions = 0;

  constructor(blocks: BlockManager, limits: SchedulerLimits) {
    assert(limits.sequencesMax >= 1, 'at least one sequence runs');
    assert(limits.mixedTokensMax >= limits.sequencesMax, 'a step has a token for every sequence');
    assert(limits.stepTokensMax >= limits.mixedTokensMax, 'a mixed step is no larger than others');
    assert(limits.scoredRowsMax >= 1, 'a step scores at least one row');
    this.#blocks = blocks;
    this.#limits = limits;
  }

  get runningCount(): number {
    return this.#running.length;
  }

  /** Waiting sequences and held choices. */
  get waitingCount(): number {
    return this.#waitingCount;
  }

  get isIdle(): boolean {
    return this.#running.length + this.#waitingCount === 0;
  }

  /** Tokens still to be computed for everything in flight. */
  tokensInFlight(): number {
    return this.#running.reduce((sum, each) => sum + each.tokensAhead, this.#waitingTokens);
  }

  /** Takes a new sequence; a held one is not scheduled until `unhold`. */
  add(sequence: Sequence, state: 'waiting' | 'held'): void {
    const credit = this.#limits.stepTokensMax;
    const scope = this.#scopes.get(sequence.scope) ?? newScope(sequence.scope, credit);
    this.#scopes.set(sequence.scope, scope);
    this.#waitingCount++;
    this.#waitingTokens += sequence.tokensAhead;
    sequence.state = state;
    if (state === 'held') scope.held++;
    else enqueue(scope.waiting, sequence);
  }

  /** Lets a held choice wait for its turn. */
  unhold(sequence: Sequence): void {
    assert(sequence.state === 'held', 'only a held sequence is let go');
    const scope = this.#scopeOf(sequence);
    scope.held--;
    sequence.state = 'waiting';
    enqueue(scope.waiting, sequence);
  }

  /** Takes a sequence out, wherever it is; its full computed blocks stay in the prefix cache. */
  end(sequence: Sequence): void {
    const scope = this.#scopeOf(sequence);
    if (sequence.state === 'running') {
      this.#leaveRunning(sequence, scope);
    } else {
      assert(sequence.state !== 'ended', 'a sequence ends once');
      this.#waitingCount--;
      this.#waitingTokens -= sequence.tokensAhead;
      if (sequence.state === 'held') scope.held--;
      else remove(scope.waiting, sequence);
    }
    sequence.state = 'ended';
    const inFlight = scope.waiting.length + scope.held + scope.running;
    if (inFlight === 0) this.#scopes.delete(scope.name);
  }

  /** Chooses the next step: rows of the sequences that take part, oldest first. */
  plan(): readonly ScheduledRows[] {
    this.#step++;
    for (const sequence of this.#running) sequence.scheduled = 0;
    const { stepTokensMax, mixedTokensMax, scoredRowsMax } = this.#limits;
    const decodes = this.#running.some(({ pending }) => pending === 1);
    const tokensMax = decodes ? mixedTokensMax : stepTokensMax;
    const budget = { tokens: tokensMax, scoredRows: scoredRowsMax, admits: 'all' as const };
    this.#planDecodes(budget);
    this.#planPrefills(budget);
    const chosen = this.#running.filter((sequence) => sequence.scheduled > 0);
    assert(chosen.length > 0 || this.#running.length === 0, 'the oldest sequence proceeds');
    this.#shareCredit(tokensMax - budget.tokens);
    return scheduledRows(chosen);
  }

  /**
   * Takes the next `count` rows of a running sequence as computed, whose tokens are known by now,
   * and enters the blocks that they fill into the prefix cache. Nothing else does either, so nobody
   * finds a block there with a row that the engine has not accepted.
   */
  accept(sequence: Sequence, count: number): void {
    assert(sequence.state === 'running', 'only rows of a running sequence are accepted');
    sequence.computed += count;
    assert(sequence.computed <= sequence.length, 'no draft is accepted before it is known');
    this.#blocks.commit(sequence.table, sequence.tokens, sequence.computed);
  }

  #planDecodes(budget: Budget): void {
    for (const sequence of this.#running.slice()) {
      if (sequence.state !== 'running' || sequence.pending !== 1) continue;
      this.#schedule(sequence, 1, budget);
    }
    this.#planDrafts(budget);
  }

  /**
   * Adds the rows of drafts, which take half of what the decodes leave, so that prompts go on, and
   * no block from anybody: a draft is dropped rather than computed at another's cost.
   */
  #planDrafts(budget: Budget): void {
    let left = Math.floor(budget.tokens / 2);
    for (const sequence of this.#running) {
      if (sequence.scheduled !== 1 || sequence.pending !== 1) continue;
      const { promptLength, outputTokensMax, length, table, drafts } = sequence;
      // The last output token is drawn and never computed.
      const count = Math.min(drafts.length, left, promptLength + outputTokensMax - 1 - length);
      if (count <= 0 || !this.#blocks.grow(table, length + count)) continue;
      sequence.scheduled += count;
      left -= count;
      budget.tokens -= count;
      this.#scopeOf(sequence).credit -= count;
    }
  }

  #planPrefills(budget: Budget): void {
    while (budget.tokens > 0) {
      const sequence = this.#nextPrefill(budget);
      if (sequence === null) return;
      if (sequence.state === 'waiting' && !this.#admit(sequence, budget)) {
        sequence.consideredAt = this.#step;
        const lacksPlace = this.#running.length === this.#limits.sequencesMax;
        budget.admits = lacksPlace && budget.admits !== 'none' ? 'idle' : 'none';
        continue;
      }
      const rowsMax = sequence.scoresPrompt ? rowsAllowed(sequence, budget) : Infinity;
      const count = Math.min(sequence.pending, budget.tokens, rowsMax);
      this.#schedule(sequence, count, budget);
    }
  }

  /** The head of the scope with the greatest credit; between equals, the older. */
  #nextPrefill(budget: Budget): Sequence | null {
    const heads = new Map<string, Sequence>();
    for (const sequence of this.#running) {
      const isOpen = sequence.consideredAt !== this.#step && sequence.pending > 0;
      if (isOpen && !heads.has(sequence.scope)) heads.set(sequence.scope, sequence);
    }
    let best: { sequence: Sequence; credit: number } | null = null;
    for (const scope of this.#scopes.values()) {
      let head = heads.get(scope.name) ?? null;
      const isOpen = budget.admits === 'all' || (budget.admits === 'idle' && scope.running === 0);
      const first = isOpen ? scope.waiting[0] : undefined;
      if (first !== undefined && first.consideredAt !== this.#step) {
        if (head === null || first.serial < head.serial) head = first;
      }
      if (head === null) continue;
      const { credit } = scope;
      const isEqual = best !== null && credit === best.credit;
      if (best === null || credit > best.credit || (isEqual && head.serial < best.sequence.serial))
        best = { sequence: head, credit };
    }
    return best === null ? null : best.sequence;
  }

  /** Gives `count` tokens of the step to a running sequence, if it can have the blocks for them. */
  #schedule(sequence: Sequence, count: number, budget: Budget): void {
    sequence.consideredAt = this.#step;
    if (count === 0) return;
    while (!this.#blocks.grow(sequence.table, sequence.computed + count)) {
      const victim = this.#chooseVictim();
      assert(victim !== null, 'a sequence that runs alone has all the blocks it needs');
      this.#preempt(victim, budget);
      budget.admits = 'none';
      if (victim === sequence) return;
    }
    sequence.scheduled = count;
    budget.tokens -= count;
    this.#scopeOf(sequence).credit -= count;
    if (sequence.scoresPrompt) budget.scoredRows -= scoredCount(sequence, count);
  }

  #shareCredit(tokens: number): void {
    const bound = creditStepsMax * this.#limits.stepTokensMax;
    const share = tokens / this.#scopes.size;
    for (const scope of this.#scopes.values()) {
      scope.credit = Math.max(-bound, Math.min(bound, scope.credit + share));
    }
  }

  #admit(sequence: Sequence, budget: Budget): boolean {
    const scope = this.#scopeOf(sequence);
    while (!this.#fits(sequence)) {
      const victim = scope.running === 0 ? this.#chooseFromCrowd() : null;
      if (victim === null) return false;
      this.#preempt(victim, budget);
    }
    remove(scope.waiting, sequence);
    scope.running++;
    this.#waitingCount--;
    this.#waitingTokens -= sequence.tokensAhead;
    sequence.state = 'running';
    sequence.computed = this.#blocks.attach(sequence.table, sequence.tokens, sequence.reusable);
    enqueue(this.#running, sequence);
    return true;
  }

  /**
   * Tells whether a place and the blocks of all its tokens are free, with one to spare for each
   * other.
   */
  #fits(sequence: Sequence): boolean {
    if (this.#running.length === 0) return true;
    if (this.#running.length === this.#limits.sequencesMax) return false;
    const cached = this.#blocks.match(sequence.table, sequence.tokens, sequence.reusable);
    const needed = blocksFor(sequence.length) - cached.blocks + cached.idle;
    let promised = this.#running.length;
    for (const each of this.#running) promised += blocksFor(each.length) - each.table.count;
    return needed + promised <= this.#blocks.available;
  }

  /** The youngest of the scope with the least credit, never the oldest of all. */
  #chooseVictim(): Sequence | null {
    let victim: Sequence | null = null;
    for (const sequence of this.#running.slice(1).toReversed()) {
      const { credit } = this.#scopeOf(sequence);
      if (victim === null || credit < this.#scopeOf(victim).credit) victim = sequence;
    }
    return victim;
  }

  /** The youngest of the scope with the most running, if it has others; never the oldest of all. */
  #chooseFromCrowd(): Sequence | null {
    let victim: Sequence | null = null;
    let most = 1;
    for (const sequence of this.#running.slice(1).toReversed()) {
      const { running } = this.#scopeOf(sequence);
      if (running > most) {
        victim = sequence;
        most = running;
      }
    }
    return victim;
  }

  #preempt(sequence: Sequence, budget: Budget): void {
    const scope = this.#scopeOf(sequence);
    budget.tokens += sequence.scheduled;
    scope.credit += sequence.scheduled;
    if (sequence.scoresPrompt) budget.scoredRows += scoredCount(sequence, sequence.scheduled);
    this.#leaveRunning(sequence, scope);
    sequence.state = 'waiting';
    sequence.consideredAt = this.#step;
    sequence.computed = 0;
    enqueue(scope.waiting, sequence);
    this.#waitingCount++;
    this.#waitingTokens += sequence.tokensAhead;
    this.preemptions++;
  }

  #leaveRunning(sequence: Sequence, scope: Scope): void {
    this.#blocks.release(sequence.table);
    remove(this.#running, sequence);
    scope.running--;
    sequence.scheduled = 0;
    sequence.drafts = [];
  }

  #scopeOf(sequence: Sequence): Scope {
    const scope = this.#scopes.get(sequence.scope);
    assert(scope !== undefined, 'a sequence in flight has a scope');
    return scope;
  }
}

function newScope(name: string, credit: number): Scope {
  return { name, waiting: [], held: 0, running: 0, credit };
}

/** Bounds a chunk so that it scores no more rows than the step has left. */
function rowsAllowed(sequence: Sequence, budget: Budget): number {
  const unscored = sequence.promptLength - 1 - Math.max(sequence.computed, sequence.scored);
  if (unscored <= budget.scoredRows) return Infinity;
  return Math.max(sequence.scored - sequence.computed, 0) + budget.scoredRows;
}

/** Inserts in order of serial. New ones go last, preempted ones near the front. */
function enqueue(queue: Sequence[], sequence: Sequence): void {
  const isLast = queue.length === 0 || at(queue, queue.length - 1).serial < sequence.serial;
  const place = isLast ? queue.length : queue.findIndex((each) => each.serial > sequence.serial);
  queue.splice(place, 0, sequence);
}

function remove(queue: Sequence[], sequence: Sequence): void {
  const place = queue.indexOf(sequence);
  assert(place >= 0, 'a sequence stands in the queue of its state');
  queue.splice(place, 1);
}
