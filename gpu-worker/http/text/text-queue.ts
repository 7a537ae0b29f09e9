/**
 * Requests that wait to be read. Scopes take turns, so that one tenant's many do not stand before
 * another's few; of a scope the smallest comes first.
 */
export interface WaitingText {
  readonly scope: string;
  readonly bytes: number;
}

export class TextQueue<Job extends WaitingText> {
  /** Jobs by scope, the one whose turn is next first; each ascending by size. */
  readonly #scopes = new Map<string, Job[]>();
  #count = 0;
  #bytes = 0;

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(job: Job): void {
    const jobs = this.#scopes.get(job.scope) ?? [];
    const after = jobs.findIndex(({ bytes }) => bytes > job.bytes);
    jobs.splice(after < 0 ? jobs.length : after, 0, job);
    this.#scopes.set(job.scope, jobs);
    this.#count++;
    this.#bytes += job.bytes;
  }

  /** The first in turn that fits; its scope is last after it. */
  take(fits: (job: Job) => boolean): Job | null {
    for (const jobs of this.#scopes.values()) {
      const job = jobs.find(fits);
      if (job === undefined) continue;
      this.remove(job);
      if (this.#scopes.delete(job.scope) && jobs.length > 0) this.#scopes.set(job.scope, jobs);
      return job;
    }
    return null;
  }

  /** False if it does not wait. */
  remove(job: Job): boolean {
    const jobs = this.#scopes.get(job.scope) ?? [];
    const at = jobs.indexOf(job);
    if (at < 0) return false;
    jobs.splice(at, 1);
    if (jobs.length === 0) this.#scopes.delete(job.scope);
    this.#count--;
    this.#bytes -= job.bytes;
    return true;
  }

  /** All that wait; nothing does after it. */
  drain(): Job[] {
    const all = [...this.#scopes.values()].flat();
    this.#scopes.clear();
    this.#count = 0;
    this.#bytes = 0;
    return all;
  }
}
