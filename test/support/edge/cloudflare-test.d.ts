/** The part of the test runner's module that the tests inside workerd use. */
declare module 'cloudflare:test' {
  import type { D1Database, DurableObjectId, DurableObjectState } from '@cloudflare/workers-types';

  type Fleet = import('../../../edge/fleet/fleet-contract.ts').Fleet;
  type Tenant = import('../../../edge/tenant/tenant-contract.ts').Tenant;

  interface Namespace<Contract> {
    newUniqueId(): DurableObjectId;
    idFromName(name: string): DurableObjectId;
    get(id: DurableObjectId): Contract;
  }

  export const env: {
    readonly TENANT: Namespace<Tenant>;
    readonly FLEET: Namespace<Fleet>;
    readonly DIRECTORY: D1Database;
    readonly DIRECTORY_MIGRATIONS: readonly unknown[];
  };
  export function applyD1Migrations(db: D1Database, migrations: readonly unknown[]): Promise<void>;
  export function runInDurableObject<Contract, Result>(
    stub: Contract,
    use: (instance: Contract, state: DurableObjectState) => Promise<Result>,
  ): Promise<Result>;
  /** Returns true if there was an alarm to run. */
  export function runDurableObjectAlarm(stub: unknown): Promise<boolean>;
  export function evictDurableObject(stub: unknown): Promise<void>;
}
