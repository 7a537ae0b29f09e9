/**
 * The edge in real workerd on this machine: the worker of wrangler.toml as wrangler bundles it, run
 * by Miniflare with its Durable Objects and D1 in a folder of the caller's choice. Not `wrangler
 * dev`, whose proxy for reloading keeps from the worker that a client has left.
 */
import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Miniflare } from 'miniflare';
import { listenInFront } from './client-front.ts';
import { untilAborted } from './stop-signal.ts';

const root = join(import.meta.dirname, '..');
/** The name of the worker in wrangler.toml; its Durable Objects' files lie under it. */
const workerName = 'sift-edge';

/** A build of one's own, under Miniflare's name for it. */
const givenWorkerd = process.env['MINIFLARE_WORKERD_PATH'];

/** Keeps wrangler from asking for updates, sending metrics or fetching its `cf` sample. */
const quiet = {
  WRANGLER_SEND_METRICS: 'false',
  CLOUDFLARE_CF_FETCH_ENABLED: 'false',
  WRANGLER_HIDE_BANNER: 'true',
  WRANGLER_LOG: 'error',
  CI: '1',
};

export interface WorkerdEdge {
  readonly url: string;
  close(): Promise<void>;
}

export interface WorkerdEdgeOptions {
  /** The folder in which D1 and the Durable Objects keep their files. */
  readonly folder: string;
  readonly host?: string;
  /** 0, the default, takes any free port. */
  readonly port?: number;
  /** Settings and secrets of edge/settings/settings-table.ts. */
  readonly settings: Readonly<Record<string, string>>;
  /** Ends a start that is under way; all that had started is closed then. */
  readonly stop?: AbortSignal;
  /** Told what is done next; each step takes seconds. */
  readonly onStep?: (step: string) => void;
  /** Told each line that the edge logs; without it its errors alone are printed. */
  readonly onLog?: (line: string) => void;
}

/** @throws the reason of `stop` once that is aborted. */
export async function startWorkerdEdge(options: WorkerdEdgeOptions): Promise<WorkerdEdge> {
  const { folder, settings, host = '127.0.0.1', port = 0, onStep = () => {}, onLog } = options;
  const stop = options.stop ?? new AbortController().signal;
  const bundle = join(folder, 'bundle');
  // The texts' names hold their hashes, so those of an earlier version would stay.
  rmSync(bundle, { recursive: true, force: true });
  onStep('bundling the edge and migrating its directory with wrangler');
  const migrations = ['d1', 'migrations', 'apply', 'sift-directory', '--local'];
  const built = await Promise.allSettled([
    wrangler([...migrations, '--persist-to', folder], stop),
    wrangler(['deploy', '--dry-run', '--outdir', bundle], stop),
  ]);
  for (const each of built) if (each.status === 'rejected') throw each.reason;
  onStep('starting workerd');
  const runtime = await openRuntime({ bundle, folder, settings, ...(onLog && { onLog }) });
  try {
    const ready = Promise.race([runtime.ready, untilAborted(stop)]);
    const { hostname, port: portBehind } = await ready;
    const behind = { host: hostname, port: Number(portBehind) };
    const front = await listenInFront({ host, port, behind });
    return {
      url: `http://${host.includes(':') ? `[${host}]` : host}:${front.port}`,
      async close() {
        await front.close();
        await runtime.dispose();
      },
    };
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

async function openRuntime(options: {
  readonly bundle: string;
  readonly folder: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly onLog?: (line: string) => void;
}): Promise<Miniflare> {
  const { bundle, folder, settings, onLog } = options;
  const handlers = signalHandlers();
  const { unstable_getMiniflareWorkerOptions: readWorkerOptions } = await import('wrangler');
  const { convertV4MiniflareOptions, Log, LogLevel, Miniflare } = await import('miniflare');
  // The program lies in this folder: one of an earlier folder may be gone.
  process.env['MINIFLARE_WORKERD_PATH'] = givenWorkerd ?? deafToCtrlC(folder);
  const { workerOptions } = readWorkerOptions(join(root, 'wrangler.toml'));
  const runtime = new Miniflare(
    convertV4MiniflareOptions({
      host: '127.0.0.1',
      port: 0,
      cf: false,
      log: new Log(LogLevel.ERROR),
      logRequests: false,
      // Lines of the edge's log go to the log of a deployed worker; here they would drown the demo.
      handleStructuredLogs: ({ level, message }) => {
        if (onLog) onLog(message);
        else if (level === 'error') console.error(message);
      },
      telemetry: { enabled: false },
      resourcePersistencePath: join(folder, 'v3'),
      workers: [
        {
          ...workerOptions,
          name: workerName,
          modulesRoot: bundle,
          modules: modulesOf(bundle),
          bindings: Object.assign({}, workerOptions.bindings, settings),
        },
      ],
    }),
  );
  // Both end the process at the first Ctrl-C; whoever called this decides when to end.
  for (const [signal, handler] of signalHandlers()) {
    if (!handlers.some(([, known]) => known === handler)) process.off(signal, handler);
  }
  return runtime;
}

/**
 * A terminal's Ctrl-C reaches every process of the command; workerd would die of it in the middle
 * of the answers that are to finish. What is ignored stays ignored in the program that takes the
 * shell's place.
 */
function deafToCtrlC(folder: string): string {
  const miniflare = createRequire(import.meta.resolve('miniflare'));
  const { default: workerd }: { default: string } = miniflare('workerd');
  const script = join(folder, 'workerd.sh');
  const quoted = `'${workerd.replaceAll("'", `'\\''`)}'`;
  writeFileSync(script, `#!/bin/sh\ntrap '' INT\nexec ${quoted} "$@"\n`, { mode: 0o700 });
  return script;
}

type SignalHandler = readonly ['SIGINT' | 'SIGTERM', NodeJS.SignalsListener];

function signalHandlers(): SignalHandler[] {
  const signals = ['SIGINT', 'SIGTERM'] as const;
  return signals.flatMap((signal) =>
    process.listeners(signal).map((handler): SignalHandler => [signal, handler]),
  );
}

/** Lists what wrangler wrote there: the worker, first, and the texts that it imports. */
function modulesOf(bundle: string) {
  const names = readdirSync(bundle).filter((name) => /\.(js|sql)$/.test(name));
  const main = names.find((name) => name === 'worker.js');
  assert(main !== undefined, 'wrangler writes the worker under the name of its source');
  return [main, ...names.filter((name) => name !== main)].map((name) => ({
    type: name === main ? ('ESModule' as const) : ('Text' as const),
    path: join(bundle, name),
    contents: readFileSync(join(bundle, name), 'utf8'),
  }));
}

/** Waits for the process to end, also when it is told to. @throws what it said if it failed. */
async function wrangler(args: readonly string[], stop: AbortSignal): Promise<void> {
  const program = join(root, 'node_modules/wrangler/bin/wrangler.js');
  const running = promisify(execFile)(process.execPath, [program, ...args], {
    cwd: root,
    env: { ...process.env, ...quiet },
  });
  const end = (): void => void running.child.kill();
  stop.addEventListener('abort', end, { once: true });
  try {
    await running;
  } catch (error) {
    stop.throwIfAborted();
    throw error;
  } finally {
    stop.removeEventListener('abort', end);
  }
  stop.throwIfAborted();
}
