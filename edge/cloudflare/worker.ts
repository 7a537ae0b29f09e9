/** The edge on Cloudflare: the same app over Durable Objects and D1. */
import { waitUntil } from 'cloudflare:workers';
import type { ForwardKeyed } from '../services.ts';
import type { WorkerEnv } from './worker-env.ts';
import { readToTheEnd } from './read-to-the-end.ts';
import { oneApp } from './worker-services.ts';

export { AnswerObject } from './answer-object.ts';
export { FleetObject } from './fleet-object.ts';
export { TenantObject } from './tenant-object.ts';

const appOf = oneApp((env) => ({ keepAlive: waitUntil, forwardKeyed: forwardTo(env) }));

export default {
  async fetch(request: Request, env: WorkerEnv): Promise<Response> {
    const answer = await appOf(env).fetch(request);
    await readToTheEnd(request);
    return answer;
  },
};

/** One object answers all requests with one key, so that the second finds what the first began. */
function forwardTo(env: WorkerEnv): ForwardKeyed {
  return ({ tenant, keyId, idempotencyKey }, c) => {
    const name = JSON.stringify([tenant, keyId, idempotencyKey]);
    return env.ANSWER.get(env.ANSWER.idFromName(name)).fetch(c.req.raw);
  };
}
