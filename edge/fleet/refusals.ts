/** Remembers which heartbeats were refused and why, for an operator who misses a worker. */
import { z } from 'zod';
import type { RefusedAnnouncement } from './worker-contract.ts';

/** Refusals that are kept; beyond it the oldest one is forgotten. */
const refusalsMax = 50;
const reasonCharactersMax = 300;

const identitySchema = z.looseObject({
  id: z.string().max(128).nullable().catch(null),
  url: z.string().max(2_000).nullable().catch(null),
});

export class Refusals {
  /** Refusals by worker and reason, the newest last. */
  readonly #refused = new Map<string, RefusedAnnouncement>();

  note(body: unknown, refusal: { readonly reason: string; readonly nowMs: number }): void {
    const identity = identitySchema.safeParse(body).data;
    const id = identity?.id ?? null;
    const url = shownUrl(identity?.url ?? null);
    const reason = refusal.reason.slice(0, reasonCharactersMax);
    const key = JSON.stringify([id, url, reason]);
    const times = (this.#refused.get(key)?.times ?? 0) + 1;
    this.#refused.delete(key);
    this.#refused.set(key, { id, url, reason, times, lastAtMs: refusal.nowMs });
    const [oldest] = this.#refused.keys();
    if (this.#refused.size > refusalsMax && oldest !== undefined) this.#refused.delete(oldest);
  }

  /** Forgets the refusals of a worker that is accepted now. */
  forget(worker: { readonly id: string; readonly url: string }): void {
    const url = shownUrl(worker.url);
    for (const [key, refused] of this.#refused) {
      if (refused.id === worker.id && refused.url === url) this.#refused.delete(key);
    }
  }

  newestFirst(): readonly RefusedAnnouncement[] {
    return [...this.#refused.values()].toReversed();
  }
}

/** Shows host and path; a user name, a password or a query may be secret. */
function shownUrl(text: string | null): string | null {
  if (text === null || !URL.canParse(text)) return null;
  const { protocol, host, pathname } = new URL(text);
  return `${protocol}//${host}${pathname === '/' ? '' : pathname}`.slice(0, 300);
}
