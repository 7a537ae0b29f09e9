/** What the edge uses of workerd. Cloudflare's own globals would clash with Node's. */
declare module 'cloudflare:workers' {
  import type { DurableObjectState } from '@cloudflare/workers-types';

  export abstract class DurableObject<Env> {
    protected readonly ctx: DurableObjectState;
    protected readonly env: Env;
    constructor(ctx: DurableObjectState, env: Env);
  }
  /** Of the request that is being handled. */
  export function waitUntil(work: Promise<unknown>): void;
}
