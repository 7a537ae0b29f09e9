/**
 * One tenant on Cloudflare: a Durable Object whose SQLite is the tenant's database. It runs one
 * thread, and its answers leave only after what they tell of is durable.
 */
import { strict as assert } from 'node:assert';
import type { DurableObjectState } from '@cloudflare/workers-types';
import { DurableObject } from 'cloudflare:workers';
import { openTenantDb } from '../../db/drivers/durable-sqlite.ts';
import { nameDatabase } from '../../db/identity.ts';
import { readWorkerSettings } from '../env.ts';
import { reconcileHolds } from '../reconcile/reconcile-holds.ts';
import type {
  AdmitInput,
  AdmitResult,
  PreadmitInput,
  PrefixKey,
} from '../tenant/admission-contract.ts';
import type { KeyLimits, Scope, VerifiedKey } from '../tenant/key-contract.ts';
import type { SettleInput } from '../tenant/settlement-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { createTenant } from '../tenant/tenant.ts';
import { logToConsole } from './console-log.ts';
import type { WorkerEnv } from './worker-env.ts';

/** Holds that expired and could not be resolved are tried again this often. */
const retryMs = 60_000;

export class TenantObject extends DurableObject<WorkerEnv> implements Tenant {
  #tenant: Tenant | null = null;
  /** Whether an alarm is set, so that admission need not ask. */
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

  async preadmit(input: PreadmitInput) {
    return this.#open.preadmit(input);
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

  async placed(input: Parameters<Tenant['placed']>[0]) {
    return this.#open.placed(input);
  }

  async settle(input: SettleInput) {
    return this.#open.settle(input);
  }

  async prefixHits(chain: readonly PrefixKey[]) {
    return this.#open.prefixHits(chain);
  }

  async authorize(key: VerifiedKey, scope: Scope) {
    return this.#open.authorize(key, scope);
  }

  async admitFree(key: VerifiedKey, scope: Scope) {
    return this.#open.admitFree(key, scope);
  }

  async balance() {
    return this.#open.balance();
  }

  async usage(page: Parameters<Tenant['usage']>[0]) {
    return this.#open.usage(page);
  }

  async entries(page: Parameters<Tenant['entries']>[0]) {
    return this.#open.entries(page);
  }

  async openHolds(olderThanMs: number) {
    return this.#open.openHolds(olderThanMs);
  }

  async audit() {
    return this.#open.audit();
  }

  async createKey(input: Parameters<Tenant['createKey']>[0]) {
    return this.#open.createKey(input);
  }

  async updateKey(keyId: string, change: Parameters<Tenant['updateKey']>[1]) {
    return this.#open.updateKey(keyId, change);
  }

  async keys() {
    return this.#open.keys();
  }

  async limits() {
    return this.#open.limits();
  }

  async setLimits(limits: KeyLimits) {
    return this.#open.setLimits(limits);
  }

  async credit(input: Parameters<Tenant['credit']>[0]) {
    return this.#open.credit(input);
  }

  async uncredited(sources: readonly string[]) {
    return this.#open.uncredited(sources);
  }

  async correct(input: Parameters<Tenant['correct']>[0]) {
    return this.#open.correct(input);
  }
}
