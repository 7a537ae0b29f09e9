/**
 * The directory: models, prices, tenants and payments, shared by all tenants; holds no balances.
 */
import type { Price } from '../money.ts';

export interface ModelRecord {
  readonly id: string;
  readonly contextLength: number;
  readonly revision: string;
  readonly tokenizer: string;
  readonly ownedBy: string;
  readonly createdAtMs: number;
}

/** Another name of models, of which a request runs on the first that can take it. */
export interface ModelAlias {
  readonly name: string;
  readonly models: readonly string[];
  readonly createdAtMs: number;
}

/**
 * A price is in force from `fromMs`, inside its daily window if it has one (minutes of the UTC
 * day).
 */
export interface PriceRecord extends Price {
  readonly model: string;
  readonly fromMs: number;
  readonly window: { readonly startMinute: number; readonly endMinute: number } | null;
}

export interface TenantRecord {
  /** The tenant's share of the workers beside other tenants that wait too: an integer from 1. */
  readonly weight: number;
  readonly id: string;
  readonly name: string;
  /** `creating`: its database is not known to exist yet, and it has no key. */
  readonly status: 'creating' | 'active' | 'suspended';
  readonly createdAtMs: number;
}

export interface Directory {
  /** @throws if it cannot be written now. */
  checkWritable(): Promise<void>;
  models(): Promise<ModelRecord[]>;
  putModel(model: ModelRecord): Promise<void>;
  aliases(): Promise<ModelAlias[]>;
  putAlias(alias: ModelAlias): Promise<void>;
  /** false when there is no such alias. */
  removeAlias(name: string): Promise<boolean>;
  /** The price in force at that instant; a price with a window wins over one without. */
  priceAt(model: string, atMs: number): Promise<Price | null>;
  prices(model: string | null): Promise<PriceRecord[]>;
  addPrice(price: PriceRecord): Promise<void>;
  tenant(id: string): Promise<TenantRecord | null>;
  tenants(): Promise<TenantRecord[]>;
  /** The new tenant's weight is 1. */
  createTenant(tenant: Omit<TenantRecord, 'weight'>): Promise<boolean>;
  setTenantStatus(id: string, status: TenantRecord['status']): Promise<boolean>;
  setTenantWeight(id: string, weight: number): Promise<boolean>;
  /** Notes a payment event that was credited; false when it was noted before. */
  noteEvent(event: PaymentEvent): Promise<boolean>;
  knowsEvent(id: string): Promise<boolean>;
  /**
   * Notes a payment before it is credited, and says what was known of its source. The note outlives
   * the tenant's database, so that a payment is not credited again where that was restored from an
   * older copy.
   */
  beginPayment(payment: Payment): Promise<'new' | 'begun' | 'credited'>;
  /** Notes that the payment was credited. */
  endPayment(source: string): Promise<void>;
  /** A page of a tenant's payments that were credited, by source. */
  creditedPayments(page: {
    readonly tenant: string;
    readonly afterSource: string;
    readonly limit: number;
  }): Promise<Payment[]>;
}

export interface Payment {
  readonly source: string;
  readonly tenant: string;
  readonly amountNanoUsd: number;
  readonly beganAtMs: number;
}

export interface PaymentEvent {
  readonly id: string;
  readonly kind: string;
  readonly tenant: string | null;
  readonly receivedAtMs: number;
}
