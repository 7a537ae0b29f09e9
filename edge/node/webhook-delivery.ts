/**
 * Delivers the webhooks of all tenants on Node. Which tenants have something to send is learnt by
 * asking each of them when the process starts, and from then on from the tenants themselves.
 */
import type { Log } from '../../infra/log.ts';
import type { Directory } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { createSender } from '../webhooks/sender.ts';
import type { PostWebhook, Sender } from '../webhooks/sender.ts';
import { messageOf } from './data-folder.ts';

/** A tenant that failed is asked again after this. */
const retryMs = 60_000;

export interface WebhookDelivery {
  /** Something of the tenant's may be due from then on. */
  due(tenant: string, atMs: number): void;
  /** Sends what has become due; runs on by itself until all of it was tried. */
  look(): Promise<void>;
  /** Ends what is under way. */
  close(): Promise<void>;
}

export function createWebhookDelivery(options: {
  readonly directory: Pick<Directory, 'tenants'>;
  readonly clock: Services['clock'];
  readonly log: Log;
  /** true for the tenants whose webhooks are sent here. */
  readonly owns: (id: string) => boolean;
  /** The stub of a tenant, whose use does not count as use by a client. */
  readonly tenant: (id: string) => Tenant;
  readonly hosts: readonly string[];
  readonly post: PostWebhook;
}): WebhookDelivery {
  const { directory, clock, log, owns, tenant, hosts, post } = options;
  const stopping = new AbortController();
  const { signal: stop } = stopping;
  const dueAtMs = new Map<string, number>();
  const running = new Map<string, { readonly sender: Sender; readonly done: Promise<void> }>();
  let isKnown = false;

  const run = async (id: string, sender: Sender): Promise<void> => {
    try {
      const nextAtMs = await sender.run();
      if (nextAtMs !== null) note(id, nextAtMs);
    } catch (error) {
      log('warn', 'webhooks-failed', { tenant: id, reason: messageOf(error) });
      note(id, clock.nowMs() + retryMs);
    } finally {
      running.delete(id);
    }
  };

  const note = (id: string, atMs: number): void => {
    dueAtMs.set(id, Math.min(atMs, dueAtMs.get(id) ?? Infinity));
  };

  const start = (id: string): void => {
    dueAtMs.delete(id);
    const busy = running.get(id);
    if (busy !== undefined) return busy.sender.wake();
    const sender = createSender({ tenant: tenant(id), post, hosts, clock, stop });
    running.set(id, { sender, done: run(id, sender) });
  };

  return {
    due(id, atMs) {
      if (stop.aborted) return;
      note(id, atMs);
      // The transaction that calls this is to be over before its tenant is asked.
      if (atMs <= clock.nowMs()) setImmediate(() => void (dueAtMs.has(id) && start(id)));
    },
    async look() {
      if (!isKnown) {
        for (const { id, status } of await directory.tenants()) {
          if (owns(id) && status !== 'creating') note(id, clock.nowMs());
        }
        isKnown = true;
      }
      for (const [id, atMs] of dueAtMs) if (atMs <= clock.nowMs() && !stop.aborted) start(id);
    },
    async close() {
      stopping.abort();
      await Promise.all([...running.values()].map(({ done }) => done));
    },
  };
}
