/**
 * The answers under an Idempotency-Key that are being made in this process. One outlives the client
 * that asked for it, and whoever sends the same request again waits for it. It ends early only when
 * nobody has waited for it for a while, or when the process ends.
 */
import { strict as assert } from 'node:assert';
import { ApiError } from '../errors.ts';
import { unknownMsMax } from '../reconcile/reconcile-holds.ts';
import type { RunningAnswer, RunningAnswers, WholeAnswer } from './running-answers-contract.ts';
import { createEventLog } from '../relay/event-log.ts';
import type { EventLog } from '../relay/event-log.ts';

/** This much of a running stream is kept for clients that begin at its beginning. */
const logCharactersMax = 4 * 1024 * 1024;
const clientsMax = 64;
/** An answer that nobody waits for ends before its hold could be voided. */
const abandonedAgeMsMax = unknownMsMax - 60_000;

export interface RunningAnswersOptions {
  readonly clock: { nowMs(): number };
  /** An answer that nobody waits for runs on for this long. */
  readonly runOnMs: number;
  /** It ends as well once so many more tokens were made for nobody. */
  readonly runOnTokens: number;
  /** The characters kept of all answers: tenants have even shares, and so have those of one. */
  readonly charactersMax: number;
}

export function createRunningAnswers(options: RunningAnswersOptions): RunningAnswers {
  return new AnswerRegistry(options);
}

class AnswerRegistry implements RunningAnswers {
  readonly #clock: { nowMs(): number };
  readonly #charactersMax: number;
  readonly #runOnTokens: number;
  readonly #running = new Map<string, AnswerUnderWay>();
  /** Counts the answers of each tenant that has some. */
  readonly #counts = new Map<string, number>();
  #runOnMs: number;

  constructor({ clock, charactersMax, runOnMs, runOnTokens }: RunningAnswersOptions) {
    this.#clock = clock;
    this.#charactersMax = charactersMax;
    this.#runOnMs = runOnMs;
    this.#runOnTokens = runOnTokens;
  }

  claim({ requestId, tenant }: { requestId: string; tenant: string }): RunningAnswer {
    assert(!this.#running.has(requestId), 'a request has one answer');
    const answer = new AnswerUnderWay({
      clock: this.#clock,
      runOnMs: () => this.#runOnMs,
      runOnTokens: this.#runOnTokens,
      charactersMax: () => this.#shareOf(tenant),
      forget: () => {
        if (this.#running.delete(requestId)) this.#count(tenant, -1);
      },
    });
    this.#count(tenant, 1);
    this.#running.set(requestId, answer);
    return answer;
  }

  /** One tenant's many answers take nothing of what is kept of another's. */
  #shareOf(tenant: string): number {
    const ofTenant = this.#charactersMax / this.#counts.size;
    return Math.min(logCharactersMax, ofTenant / (this.#counts.get(tenant) ?? 1));
  }

  #count(tenant: string, change: 1 | -1): void {
    const count = (this.#counts.get(tenant) ?? 0) + change;
    if (count === 0) this.#counts.delete(tenant);
    else this.#counts.set(tenant, count);
  }

  find(requestId: string): RunningAnswer | null {
    const answer = this.#running.get(requestId);
    return answer === undefined || answer.isStopped ? null : answer;
  }

  isSettling(requestId: string): boolean {
    return this.#running.get(requestId)?.isStopped ?? false;
  }

  stopAbandoned(): void {
    this.#runOnMs = 0;
    for (const answer of this.#running.values()) answer.stopWhenAbandoned();
  }
}

interface AnswerOptions {
  readonly clock: { nowMs(): number };
  readonly runOnMs: () => number;
  readonly runOnTokens: number;
  readonly charactersMax: () => number;
  readonly forget: () => void;
}

class AnswerUnderWay implements RunningAnswer {
  readonly whole = Promise.withResolvers<WholeAnswer>();
  readonly accepted = Promise.withResolvers<void>();
  readonly log: EventLog;
  readonly #options: AnswerOptions;
  readonly #openedAtMs: number;
  #clients = 0;
  #tokens = 0;
  /** The tokens that there were when the last client left. */
  #tokensForClients = 0;
  #stopped = false;
  #stop: (() => void) | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: AnswerOptions) {
    this.#options = options;
    this.#openedAtMs = options.clock.nowMs();
    this.log = createEventLog(options.charactersMax);
    // Those who wait for it see it fail; there may be nobody.
    this.whole.promise.catch(() => {});
  }

  get isStopped(): boolean {
    return this.#stopped;
  }

  join(): () => void {
    if (this.#clients === clientsMax) throw tooManyClients();
    this.#clients++;
    clearTimeout(this.#timer);
    let here = true;
    return () => {
      if (here) this.#clients--;
      here = false;
      if (this.#clients === 0) this.#tokensForClients = this.#tokens;
      this.stopWhenAbandoned();
    };
  }

  counts(outputTokens: number): void {
    this.#tokens = outputTokens;
    if (this.#stop === null || this.#stopped || this.#clients > 0) return;
    if (outputTokens - this.#tokensForClients > this.#options.runOnTokens) this.#stop();
  }

  runs(stop: () => void): void {
    this.#stop = () => {
      this.#stopped = true;
      stop();
    };
    this.stopWhenAbandoned();
  }

  over(): void {
    this.#stop = null;
    clearTimeout(this.#timer);
    this.#options.forget();
  }

  stopWhenAbandoned(): void {
    clearTimeout(this.#timer);
    if (this.#stop === null || this.#stopped || this.#clients > 0) return;
    const ageLeftMs = this.#openedAtMs + abandonedAgeMsMax - this.#options.clock.nowMs();
    // A clock that was set back makes no answer younger than new.
    const leftMs = Math.min(this.#options.runOnMs(), ageLeftMs, abandonedAgeMsMax);
    if (leftMs <= 0) this.#stop();
    else this.#timer = setTimeout(this.#stop, leftMs);
  }
}

function tooManyClients(): ApiError {
  return new ApiError(
    'idempotency_key_in_use',
    `${clientsMax} clients wait for the answer under this Idempotency-Key already.`,
    { headers: { 'retry-after': '1' } },
  );
}
