/**
 * One tenant on Cloudflare: a Durable Object whose SQLite is the tenant's database. It runs one
 * thread, and its answers leave only after what they tell of is durable. Callers reach it as a
 * `Tenant` (worker-env.ts).
 */
import { strict as assert } from 'node:assert';
import type { DurableObjectState } from '@cloudflare/workers-types';
import { DurableObject } from 'cloudflare:workers';
import { openTenantDb } from '../../db/drivers/durable-sqlite.ts';
import { nameDatabase } from '../../db/identity.ts';
import { readWorkerSettings } from '../settings/read-settings.ts';
import { reconcileHolds } from '../reconcile/reconcile-holds.ts';
import type { AdmitInput, AdmitResult } from '../tenant/admission-contract.ts';
import { tenantMethods } from '../tenant/tenant-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { createTenant } from '../tenant/tenant.ts';
import { createSender } from '../webhooks/sender.ts';
import type { Sender } from '../webhooks/sender.ts';
import { logToConsole } from './console-log.ts';
import { postWebhook } from './webhook-post.ts';
import { delegate } from './delegate.ts';
import type { WorkerEnv } from './worker-env.ts';

const clock = { nowMs: () => Date.now() };

/** Holds that expired and could not be resolved are tried again this often. */
const retryMs = 60_000;

export class TenantObject extends DurableObject<WorkerEnv> {
  static {
    delegate(this.prototype, tenantMethods, (self) => self.#open);
  }

  #tenant: Tenant | null = null;
  #sender: Sender | null = null;
  /** The time of the alarm that is set, so that a call need not ask; null: none is. */
  #alarmAtMs: number | null = null;

  constructor(ctx: DurableObjectState, env: WorkerEnv) {
    super(ctx, env);
    void ctx.blockConcurrencyWhile(async () => {
      const db = await openTenantDb(ctx.storage);
      const { name } = ctx.id;
      if (name !== undefined) {
        const named = nameDatabase(db, name);
        assert(named === name, `the object of ${name} holds the database of ${named}`);
      }
      const tenant = createTenant(db, { clock, onWebhooksDue: (atMs) => this.#webhooksDue(atMs) });
      this.#tenant = tenant;
      const hosts = readWorkerSettings(env).webhookHosts ?? [];
      this.#sender = createSender({ tenant, post: postWebhook, hosts, clock });
      this.#alarmAtMs = await ctx.storage.getAlarm();
    });
  }

  get #open(): Tenant {
    assert(this.#tenant !== null, 'no call is delivered before the constructor is done');
    return this.#tenant;
  }

  async admit(input: AdmitInput): Promise<AdmitResult> {
    const result = await this.#open.admit(input);
    if (result.kind === 'admitted' && this.#alarmAtMs === null) {
      await this.#setAlarm(Date.now() + readWorkerSettings(this.env).holdMs);
    }
    return result;
  }

  /** An alarm is for what is next; the alarm itself sets the one after it. */
  async #setAlarm(atMs: number): Promise<void> {
    if (this.#alarmAtMs !== null && this.#alarmAtMs <= atMs) return;
    this.#alarmAtMs = atMs;
    await this.ctx.storage.setAlarm(atMs);
  }

  /** Called in the transaction of the cause, with which the alarm is then durable. */
  #webhooksDue(atMs: number): void {
    this.#sender?.wake();
    void this.#setAlarm(Math.max(atMs, Date.now()));
  }

  /** Sends webhooks that are due; of open holds past their time, the same as on Node. */
  async alarm(): Promise<void> {
    this.#alarmAtMs = null;
    const [holdsAtMs, webhooksAtMs] = await Promise.all([this.#reconcile(), this.#sender?.run()]);
    for (const atMs of [holdsAtMs, webhooksAtMs ?? null]) {
      if (atMs !== null) await this.#setAlarm(atMs);
    }
  }

  /** Returns the time of the next reconciliation; null while no hold is open. */
  async #reconcile(): Promise<number | null> {
    const { holdMs, workerToken } = readWorkerSettings(this.env);
    await reconcileHolds(
      { tenant: this.#open, clock, fetch, workerToken, log: logToConsole },
      holdMs,
    );
    const [oldest] = await this.#open.openHolds(0);
    return oldest === undefined ? null : Math.max(oldest.openedAtMs + holdMs, Date.now() + retryMs);
  }
}
