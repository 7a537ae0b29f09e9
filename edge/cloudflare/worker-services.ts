/**
 * The services of the edge in workerd: of the worker itself, and of the objects that answer for it.
 */
import { openDirectoryDb } from '../../db/drivers/d1.ts';
import { createOtlpTracing } from '../../infra/tracing/otlp-tracing.ts';
import { createDirectory } from '../directory/directory.ts';
import { cacheDirectory } from '../directory/directory-cache.ts';
import { createEdge } from '../edge.ts';
import { readWorkerSettings } from '../settings/read-settings.ts';
import { postBy } from '../relay/post.ts';
import { createBodyBudget } from '../bodies/body-budget.ts';
import { accessLog } from '../observe/access-log.ts';
import { createRunningAnswers } from '../inference/running-answers.ts';
import { createServedContexts } from '../directory/served-contexts.ts';
import type { Services } from '../services.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { fleetMethods } from '../fleet/fleet-contract.ts';
import type { Fleet } from '../fleet/fleet-contract.ts';
import { forward } from '../forward.ts';
import type { WithTarget } from '../forward.ts';
import { tenantStub } from '../tenant/tenant-stub.ts';
import { logToConsole } from './console-log.ts';
import type { WorkerEnv } from './worker-env.ts';

/** A suspension or a new price acts within this time; without it each request would wait for D1. */
const directoryTtlMs = 5_000;
/** An isolate has 128 MB for everything. */
const answerCharactersMax = 24 * 1024 * 1024;
/** The budget of bodies, each of which is in memory several times while it is read. */
const bodiesBytesMax = 16 * 1024 * 1024;

/** The services in which the worker differs from the objects that answer for it. */
type RuntimeServices = Pick<Services, 'keepAlive' | 'forwardKeyed'>;

type App = ReturnType<typeof createEdge>;

/** The app of an isolate: making one takes longer than many a request. */
export function oneApp(here: (env: WorkerEnv) => RuntimeServices): (env: WorkerEnv) => App {
  // The bindings are one object for as long as the isolate lives, and the app with them.
  const apps = new WeakMap<WorkerEnv, App>();
  return (env) => {
    const app = apps.get(env) ?? createEdge(openServices(env, here(env)));
    apps.set(env, app);
    return app;
  };
}

/** Each isolate asks the fleet's object what its workers say of their contexts this often. */
const contextsTtlMs = 5_000;

function openServices(env: WorkerEnv, here: RuntimeServices): Services {
  const clock = { nowMs: () => Date.now() };
  const settings = readWorkerSettings(env);
  const tenant = (id: string): Tenant => {
    const stub = env.TENANT.get(env.TENANT.idFromName(id));
    return tenantStub((use) => use(stub));
  };
  const fleet = fleetStub(() => env.FLEET.get(env.FLEET.idFromName('fleet')));
  const logAccess = accessLog(logToConsole);
  const tracing =
    settings.tracing && createOtlpTracing({ service: 'sift-edge', ...settings.tracing });
  const directory = cacheDirectory(createDirectory(openDirectoryDb(env.DIRECTORY)), {
    clock,
    ttlMs: directoryTtlMs,
  });
  return {
    tenant,
    // An object makes its database when it is first called.
    createDatabase: async (id) => void (await tenant(id).limits()),
    fleet,
    servedContexts: createServedContexts({ fleet: () => fleet, clock, ttlMs: contextsTtlMs }),
    directory,
    settings,
    clock,
    warnings: async () => [],
    random: { bytes: (count) => crypto.getRandomValues(new Uint8Array(count)) },
    post: postBy((...call) => fetch(...call)),
    fetch: (...call) => fetch(...call),
    log: logToConsole,
    observe(ended) {
      logAccess(ended);
      // An isolate may be put to sleep before a later batch would leave.
      if (tracing !== null) here.keepAlive(tracing.flush());
    },
    tracing,
    metrics: null,
    // The tenants' objects keep their own records; the directory is what all of them share.
    checkRecords: () => directory.checkWritable(),
    runningAnswers: createRunningAnswers({
      clock,
      runOnMs: settings.runOnMs,
      runOnTokens: settings.runOnTokens,
      charactersMax: answerCharactersMax,
    }),
    bodies: createBodyBudget({
      bytesMax: bodiesBytesMax,
      bodyBytesMax: settings.bodyBytesMax,
    }),
    threads: null,
    ...here,
  };
}

/** A stub belongs to the request that made it, so each call takes its own. */
function fleetStub(fleet: () => Fleet): Fleet {
  const withFleet: WithTarget<Fleet> = (use) => use(fleet());
  return {
    ...forward(fleetMethods, withFleet),
    // One more call to another machine for each request would cost more than it saves.
    expectedRefusal: async () => null,
  };
}
