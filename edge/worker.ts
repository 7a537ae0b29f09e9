/** The edge on Cloudflare: the same app over Durable Objects and D1. */
import { waitUntil } from 'cloudflare:workers';
import { openDirectoryDb } from '../db/drivers/d1.ts';
import { createDirectory } from './directory.ts';
import { cacheDirectory } from './directory-cache.ts';
import { createEdge } from './edge.ts';
import { readWorkerSettings } from './env.ts';
import type { Services } from './services.ts';
import { tenantDoor } from './tenant-door.ts';
import type { WorkerEnv } from './worker-env.ts';

export { FleetObject } from './fleet-object.ts';
export { TenantObject } from './tenant-object.ts';

/** A suspension or a new price acts within this time; without it each request would wait for D1. */
const directoryTtlMs = 5_000;

const apps = new WeakMap<WorkerEnv, ReturnType<typeof createEdge>>();

export default {
  async fetch(request: Request, env: WorkerEnv): Promise<Response> {
    // The bindings are one object for as long as the isolate lives, and the app with them.
    let app = apps.get(env);
    if (app === undefined) {
      app = createEdge(openServices(env));
      apps.set(env, app);
    }
    return app.fetch(request);
  },
};

function openServices(env: WorkerEnv): Services {
  const clock = { nowMs: () => Date.now() };
  return {
    tenant: (id) => {
      const stub = env.TENANT.get(env.TENANT.idFromName(id));
      return tenantDoor((use) => use(stub));
    },
    fleet: fleetDoor(() => env.FLEET.get(env.FLEET.idFromName('fleet'))),
    directory: cacheDirectory(createDirectory(openDirectoryDb(env.DIRECTORY)), {
      clock,
      ttlMs: directoryTtlMs,
    }),
    settings: readWorkerSettings(env),
    clock,
    random: { bytes: (count) => crypto.getRandomValues(new Uint8Array(count)) },
    fetch: (...call) => fetch(...call),
    log: (event) => console.log(event),
    keepAlive: waitUntil,
  };
}

/** A stub belongs to the request that made it, so each call takes its own. */
function fleetDoor(fleet: () => Services['fleet']): Services['fleet'] {
  return {
    place: (input) => fleet().place(input),
    started: (requestId, worker) => fleet().started(requestId, worker),
    finished: (requestId, worker) => fleet().finished(requestId, worker),
    heartbeat: (body) => fleet().heartbeat(body),
    status: () => fleet().status(),
    drain: (worker, draining) => fleet().drain(worker, draining),
    addStatic: (worker) => fleet().addStatic(worker),
    removeStatic: (worker) => fleet().removeStatic(worker),
  };
}
