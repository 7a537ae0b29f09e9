/** The bindings of wrangler.toml; the settings (edge/settings/) stand beside them, as text. */
import type { D1Database, DurableObjectId } from '@cloudflare/workers-types';
import type { Fleet } from '../fleet/fleet-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';

interface Namespace<Stub> {
  idFromName(name: string): DurableObjectId;
  get(id: DurableObjectId): Stub;
}

export interface WorkerEnv extends Readonly<Record<string, unknown>> {
  /** A stub has its object's methods, which are those of its contract. */
  readonly TENANT: Namespace<Tenant>;
  readonly FLEET: Namespace<Fleet>;
  readonly ANSWER: Namespace<{ fetch(request: Request): Promise<Response> }>;
  readonly DIRECTORY: D1Database;
}
