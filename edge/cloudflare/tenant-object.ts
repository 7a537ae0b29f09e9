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
import { logToConsole } from './console-log.ts';
import { delegate } from './delegate.ts';
import type { WorkerEnv } from './worker-env.ts';

/** Holds that expired and could not be resolved are tried again this often. */
const retryMs = 60_000;

export class TenantObject extends DurableObject<WorkerEnv> {
  static {
    delegate(this.prototype, tenantMethods, (self) => self.#open);
  }

  #tenant: Tenant | null = null;
  /** true while an alarm is set, so that admission need not ask. */
  #armed = false;

  constructor(ctx: DurableObjectState, env: WorkerEnv) {
    super(ctx, env);
    void ctx.blockConcurrencyWhile(async () => {
      const db = await openTenantDb(ctx.storage);
      const { name } = ctx.id;
      if (name !== undefined) {
        const named = nameDatabase(db, name);
        assert(named === name, `the object of ${name} holds the database of ${named}`);
      }
      this.#tenant = createTenant(db, { clock: { nowMs: () => Date.now() } });
      this.#armed = (await ctx.storage.getAlarm()) !== null;
    });
  }

  get #open(): Tenant {
    assert(this.#tenant !== null, 'no call is delivered before the constructor is done');
    return this.#tenant;
  }

  async admit(input: AdmitInput): Promise<AdmitResult> {
    const result = await this.#open.admit(input);
    if (result.kind === 'admitted' && !this.#armed) {
      this.#armed = true;
      await this.ctx.storage.setAlarm(Date.now() + readWorkerSettings(this.env).holdMs);
    }
    return result;
  }

  /** An open hold is past its time: the same reconciliation as on Node. */
  async alarm(): Promise<void> {
    const { holdMs, workerToken } = readWorkerSettings(this.env);
    const clock = { nowMs: () => Date.now() };
    await reconcileHolds(
      { tenant: this.#open, clock, fetch, workerToken, log: logToConsole },
      holdMs,
    );
    const [oldest] = await this.#open.openHolds(0);
    this.#armed = oldest !== undefined;
    if (oldest === undefined) return;
    const expiresAtMs = oldest.openedAtMs + holdMs;
    await this.ctx.storage.setAlarm(Math.max(expiresAtMs, Date.now() + retryMs));
  }
}
