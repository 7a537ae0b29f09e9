/**
 * Models, prices, tenants and payment events, over better-sqlite3 or D1: every change one
 * statement.
 */
import { strict as assert } from 'node:assert';
import { and, asc, desc, eq, gt, lte } from 'drizzle-orm';
import {
  model,
  modelAlias,
  payment,
  price,
  tenant,
  webhookEvent,
} from '../../db/schema/directory.ts';
import type { DirectoryDb } from '../../db/types.ts';
import type { Directory, PriceRecord } from './directory-contract.ts';
import type { Price } from '../money.ts';

/** Price rows of one model that can be in force at one instant; older ones are history. */
const currentPricesMax = 1_000;
const listMax = 100_000;

/** The database is migrated. */
export function createDirectory(db: DirectoryDb): Directory {
  return { ...catalogueIn(db), ...aliasesIn(db), ...tenantsIn(db), ...paymentsIn(db) };
}

type Aliases = Pick<Directory, 'aliases' | 'putAlias' | 'removeAlias'>;

function aliasesIn(db: DirectoryDb): Aliases {
  return {
    async aliases() {
      return await db.select().from(modelAlias).orderBy(asc(modelAlias.name)).limit(listMax);
    },
    async putAlias({ name, ...fields }) {
      await db
        .insert(modelAlias)
        .values({ name, ...fields })
        .onConflictDoUpdate({ target: modelAlias.name, set: fields });
    },
    async removeAlias(name) {
      const removed = await db
        .delete(modelAlias)
        .where(eq(modelAlias.name, name))
        .returning({ name: modelAlias.name });
      return removed.length === 1;
    },
  };
}

type Catalogue = Pick<Directory, 'models' | 'putModel' | 'priceAt' | 'prices' | 'addPrice'>;

function catalogueIn(db: DirectoryDb): Catalogue {
  return {
    async models() {
      return await db.select().from(model).orderBy(asc(model.id)).limit(listMax);
    },
    async putModel(record) {
      const { id, ...fields } = record;
      await db
        .insert(model)
        .values({ id, ...fields })
        .onConflictDoUpdate({ target: model.id, set: fields });
    },
    async priceAt(id, atMs) {
      const rows = await db
        .select()
        .from(price)
        .where(and(eq(price.model, id), lte(price.fromMs, atMs)))
        .orderBy(desc(price.fromMs), desc(price.id))
        .limit(currentPricesMax);
      return priceInForce(rows.map(toRecord), atMs);
    },
    async prices(id) {
      const rows = await db
        .select()
        .from(price)
        .where(id === null ? undefined : eq(price.model, id))
        .orderBy(asc(price.model), asc(price.fromMs), asc(price.id))
        .limit(listMax);
      return rows.map(toRecord);
    },
    async addPrice({ window, ...record }) {
      for (const amount of [record.inputCached, record.inputUncached, record.output]) {
        assert(Number.isSafeInteger(amount) && amount >= 0, 'a price is an integer from 0');
      }
      // An id that exists is an error: entries name prices, so a price never changes.
      await db.insert(price).values({
        ...record,
        windowStartMinute: window?.startMinute ?? null,
        windowEndMinute: window?.endMinute ?? null,
      });
    },
  };
}

type Tenants = Pick<
  Directory,
  'checkWritable' | 'tenant' | 'tenants' | 'createTenant' | 'setTenantStatus' | 'setTenantWeight'
>;

function tenantsIn(db: DirectoryDb): Tenants {
  return {
    async checkWritable() {
      // A write needs its lock and its rights even where no row is its own.
      await db.delete(tenant).where(eq(tenant.id, ''));
    },
    async tenant(id) {
      const rows = await db.select().from(tenant).where(eq(tenant.id, id));
      return rows[0] ?? null;
    },
    async tenants() {
      return await db.select().from(tenant).orderBy(asc(tenant.id)).limit(listMax);
    },
    async createTenant(record) {
      const added = await db
        .insert(tenant)
        .values(record)
        .onConflictDoNothing()
        .returning({ id: tenant.id });
      return added.length === 1;
    },
    async setTenantStatus(id, status) {
      const changed = await db
        .update(tenant)
        .set({ status })
        .where(eq(tenant.id, id))
        .returning({ id: tenant.id });
      return changed.length === 1;
    },
    async setTenantWeight(id, weight) {
      assert(Number.isSafeInteger(weight) && weight >= 1, 'a weight is an integer from 1');
      const changed = await db
        .update(tenant)
        .set({ weight })
        .where(eq(tenant.id, id))
        .returning({ id: tenant.id });
      return changed.length === 1;
    },
  };
}

type Payments = Omit<Directory, keyof Catalogue | keyof Aliases | keyof Tenants>;

function paymentsIn(db: DirectoryDb): Payments {
  return {
    async noteEvent(event) {
      const added = await db
        .insert(webhookEvent)
        .values(event)
        .onConflictDoNothing()
        .returning({ id: webhookEvent.id });
      return added.length === 1;
    },
    async knowsEvent(id) {
      const rows = await db.select().from(webhookEvent).where(eq(webhookEvent.id, id));
      return rows.length > 0;
    },
    async beginPayment(begun) {
      const added = await db
        .insert(payment)
        .values({ ...begun, state: 'begun' })
        .onConflictDoNothing()
        .returning({ source: payment.source });
      if (added.length === 1) return 'new';
      const [before] = await db.select().from(payment).where(eq(payment.source, begun.source));
      assert(before !== undefined, 'a payment that could not be added is there');
      return before.state;
    },
    async endPayment(source) {
      await db.update(payment).set({ state: 'credited' }).where(eq(payment.source, source));
    },
    async creditedPayments({ tenant: id, afterSource, limit }) {
      const isNext = and(
        eq(payment.tenant, id),
        eq(payment.state, 'credited'),
        gt(payment.source, afterSource),
      );
      return await db
        .select()
        .from(payment)
        .where(isNext)
        .orderBy(asc(payment.source))
        .limit(limit);
    },
  };
}

/**
 * Picks the price in force. Among rows that have begun, latest first, it is the latest whose daily
 * window covers the instant, else the latest without a window. So a window ends only by a later row
 * for it.
 */
export function priceInForce(rows: readonly PriceRecord[], atMs: number): Price | null {
  const base = rows.find(({ window }) => window === null);
  const windowed = rows.find(({ window }) => window !== null && covers(window, atMs));
  const row = windowed ?? base;
  if (row === undefined) return null;
  const { id, inputCached, inputUncached, output } = row;
  return { id, inputCached, inputUncached, output };
}

/**
 * A window lasts from its start minute until before its end minute, over midnight when it starts
 * after it ends.
 */
function covers(window: { startMinute: number; endMinute: number }, atMs: number): boolean {
  const minute = Math.floor(atMs / 60_000) % 1_440;
  const { startMinute, endMinute } = window;
  if (startMinute < endMinute) return minute >= startMinute && minute < endMinute;
  return minute >= startMinute || minute < endMinute;
}

type Window = NonNullable<PriceRecord['window']>;

/** Tells if two windows share a minute; no window is all day, but goes after any window. */
export function contend(a: Window | null, b: Window | null): boolean {
  if (a === null || b === null) return a === b;
  const begins = ({ startMinute }: Window): number => startMinute * 60_000;
  return covers(a, begins(b)) || covers(b, begins(a));
}

function toRecord({
  windowStartMinute,
  windowEndMinute,
  ...row
}: typeof price.$inferSelect): PriceRecord {
  const window =
    windowStartMinute === null || windowEndMinute === null
      ? null
      : { startMinute: windowStartMinute, endMinute: windowEndMinute };
  return { ...row, window };
}
