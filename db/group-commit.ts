/**
 * Answers the caller of a transaction after the commit, always. On Node the transactions that
 * arrive in a few turns of the event loop share one commit, which is brought to the disk on another
 * thread, and those that owe nobody anything do not wait for that. In a Durable Object the output
 * gate does the same, and each runs at once.
 */
import type { SyncDb } from './types.ts';
import { DatabaseUnavailable, lockRetryMs, lockTriesMax, unavailable } from './unavailable.ts';

export interface Committer {
  /** Runs the work in a transaction of its own: it all stays or, when it throws, nothing of it. */
  run<Result>(work: () => Result): Promise<Result>;
  /**
   * The same without waiting for the disk: it outlives the process, and with the power the last of
   * it may be lost. For what owes nobody anything until a later `run`, which brings it to the disk
   * too.
   */
  runUnsynced<Result>(work: () => Result): Promise<Result>;
}

export function commitAtOnce(db: SyncDb): Committer {
  const run: Committer['run'] = async (work) => {
    try {
      return db.transaction(() => work(), { behavior: 'immediate' });
    } catch (error) {
      throw unavailable(error) ?? error;
    }
  };
  return { run, runUnsynced: run };
}

/** Transactions that share a commit at most; a turn that brings more commits several times. */
export const groupSizeMax = 256;
/** Transactions that wait at most, while the database is locked; one more is told so at once. */
export const waitingMax = 10_000;

interface Job {
  /** Works without a savepoint: when it throws, its whole group is rolled back. */
  readonly plainly: () => () => void;
  /** Works inside a savepoint. Returns what to tell the caller once that is durable. */
  readonly apart: () => () => void;
  readonly fail: (error: unknown) => void;
  readonly synced: boolean;
  /** Counts the locks that the job met. */
  tries: number;
}

interface Log {
  /** Resolves once all commits before the call are on the disk. */
  sync(): Promise<void>;
  /** Syncs before long, for commits that nobody waits for. */
  syncSoon(): void;
  /** The reason why no commit reaches the disk any more. */
  readonly failure: DatabaseUnavailable | null;
}

const noLog: Log = { sync: async () => {}, syncSoon: () => {}, failure: null };

export interface GroupOptions {
  /** Brings commits to the disk, where they do not wait for it by themselves. */
  readonly log?: Log;
  /** Calls back later, to try again what met another process's lock. */
  readonly retryLater?: (flush: () => void) => void;
}

/**
 * `schedule` calls back once those that shall share a commit have asked: on Node, turns of the
 * event loop later. Work that throws is rolled back alone; a commit that fails is every caller's
 * failure. A group that meets another process's lock waits for it, without holding up the event
 * loop, and is refused as `locked` after `lockTriesMax` tries. Work may be run more than once.
 */
export function commitInGroups(
  db: SyncDb,
  schedule: (flush: () => void) => void,
  options: GroupOptions = {},
): Committer {
  return new GroupCommitter(db, schedule, options);
}

class GroupCommitter implements Committer {
  readonly #db: SyncDb;
  readonly #schedule: (flush: () => void) => void;
  readonly #log: Log;
  readonly #retryLater: (flush: () => void) => void;
  readonly #flush = (): void => this.#commitFirst();
  #waiting: Job[] = [];

  constructor(db: SyncDb, schedule: (flush: () => void) => void, options: GroupOptions) {
    this.#db = db;
    this.#schedule = schedule;
    this.#log = options.log ?? noLog;
    this.#retryLater = options.retryLater ?? ((flush) => void setTimeout(flush, lockRetryMs));
  }

  run<Result>(work: () => Result): Promise<Result> {
    return this.#enqueue(work, true);
  }

  runUnsynced<Result>(work: () => Result): Promise<Result> {
    return this.#enqueue(work, false);
  }

  #enqueue<Result>(work: () => Result, synced: boolean): Promise<Result> {
    return new Promise((resolve, reject) => {
      const plainly = (): (() => void) => {
        const result = work();
        return () => resolve(result);
      };
      const apart = (): (() => void) => {
        try {
          return this.#db.transaction(plainly);
        } catch (error) {
          // SQLite may have rolled back the whole group, and the works after it would stand alone.
          if (unavailable(error) !== null) throw error;
          return () => reject(error);
        }
      };
      if (this.#waiting.length >= waitingMax) {
        reject(new DatabaseUnavailable('locked', `${waitingMax} transactions wait for the lock`));
        return;
      }
      this.#waiting.push({ plainly, apart, fail: reject, synced, tries: 0 });
      if (this.#waiting.length === 1) this.#schedule(this.#flush);
    });
  }

  #commitFirst(): void {
    const jobs = this.#waiting.slice(0, groupSizeMax);
    const { failure } = this.#log;
    if (failure !== null) {
      this.#leaveQueue(jobs.length, this.#schedule).forEach(({ fail }) => fail(failure));
      return;
    }
    let answers: (() => void)[];
    try {
      answers = this.#runGroup(jobs);
    } catch (error) {
      const reason = unavailable(error) ?? error;
      if (unavailable(error)?.reason === 'locked') this.#waitForLock(reason);
      else this.#leaveQueue(jobs.length, this.#schedule).forEach(({ fail }) => fail(reason));
      return;
    }
    this.#leaveQueue(jobs.length, this.#schedule);
    if (jobs.some(({ synced }) => synced)) void this.#answerOnceSynced(jobs, answers);
    else {
      this.#log.syncSoon();
      for (const answer of answers) answer();
    }
  }

  /** Hardly any work throws, so savepoints are left for the group in which one does. */
  #runGroup(jobs: readonly Job[]): (() => void)[] {
    const immediate = { behavior: 'immediate' } as const;
    try {
      return this.#db.transaction(() => jobs.map(({ plainly }) => plainly()), immediate);
    } catch (error) {
      if (unavailable(error) !== null) throw error;
      return this.#db.transaction(() => jobs.map(({ apart }) => apart()), immediate);
    }
  }

  /** Answers at once those that need not wait for the disk. */
  async #answerOnceSynced(jobs: readonly Job[], answers: readonly (() => void)[]): Promise<void> {
    const synced = this.#log.sync();
    for (const [index, answer] of answers.entries()) if (!jobs[index]?.synced) answer();
    const failure = await synced.then(
      () => null,
      (error: unknown) => ({ reason: unavailable(error) ?? error }),
    );
    for (const [index, answer] of answers.entries()) {
      const job = jobs[index];
      if (!job?.synced) continue;
      if (failure === null) answer();
      else job.fail(failure.reason);
    }
  }

  /** The first of those that wait are done; the others get a turn. */
  #leaveQueue(count: number, again: (flush: () => void) => void): Job[] {
    const gone = this.#waiting.slice(0, count);
    this.#waiting = this.#waiting.slice(count);
    if (this.#waiting.length > 0) again(this.#flush);
    return gone;
  }

  #waitForLock(reason: unknown): void {
    for (const job of this.#waiting) job.tries++;
    // Jobs stand in the order in which they came, so the first has tried the most often.
    const kept = this.#waiting.findIndex(({ tries }) => tries < lockTriesMax);
    const late = this.#leaveQueue(kept === -1 ? this.#waiting.length : kept, this.#retryLater);
    late.forEach(({ fail }) => fail(reason));
  }
}
