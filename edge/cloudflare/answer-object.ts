/**
 * The answers to the requests with one Idempotency-Key on Cloudflare. A worker ends with its
 * client, at most 30 s later; an object goes on while it has work, and all requests with the key
 * find it. It stores nothing: what outlives it is in the tenant's object.
 */
import { DurableObject, waitUntil } from 'cloudflare:workers';
import type { WorkerEnv } from './worker-env.ts';
import { oneApp } from './worker-services.ts';

/**
 * Objects that share an isolate share the app; each finds there the answers that it made itself.
 */
const appOf = oneApp(() => ({ keepAlive: waitUntil, forwardKeyed: null }));

export class AnswerObject extends DurableObject<WorkerEnv> {
  async fetch(request: Request): Promise<Response> {
    return appOf(this.env).fetch(request);
  }
}
