/**
 * The part of workerd's API that the edge uses. Cloudflare's own globals would clash with Node's.
 */
declare module 'cloudflare:workers' {
  import type { DurableObjectState } from '@cloudflare/workers-types';

  export abstract class DurableObject<Env> {
    protected readonly ctx: DurableObjectState;
    protected readonly env: Env;
    constructor(ctx: DurableObjectState, env: Env);
  }
  /** Keeps the request that is being handled alive until the work is done. */
  export function waitUntil(work: Promise<unknown>): void;
}
