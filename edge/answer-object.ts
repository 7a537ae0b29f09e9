/**
 * The answers to the requests with one Idempotency-Key on Cloudflare. A worker ends with its client, at
 * most 30 s later; an object goes on while it has work, and all requests with the key find it. It
 * stores nothing: what outlives it is in the tenant's object.
 */
import type { DurableObjectState } from '@cloudflare/workers-types';
import { DurableObject } from 'cloudflare:workers';
import { createEdge } from './edge.ts';
import type { WorkerEnv } from './worker-env.ts';
import { openServices } from './worker-services.ts';

export class AnswerObject extends DurableObject<WorkerEnv> {
  readonly #app: ReturnType<typeof createEdge>;

  constructor(ctx: DurableObjectState, env: WorkerEnv) {
    super(ctx, env);
    this.#app = createEdge(
      openServices(env, { keepAlive: (work) => ctx.waitUntil(work), forwardKeyed: null }),
    );
  }

  async fetch(request: Request): Promise<Response> {
    return this.#app.fetch(request);
  }
}
