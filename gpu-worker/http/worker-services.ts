/** The services that routes use. */
import type { Logger } from 'pino';
import type { Tracing } from '../../infra/tracing/tracing.ts';
import type { Clock } from './clock.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Metrics } from './metrics.ts';
import type { UsageJournal } from './journal/usage-journal.ts';
import type { RequestContext } from './request-context.ts';

export interface HttpSettings {
  /** WORKER_TOKEN; null lets everyone in, which `listen` allows on loopback alone. */
  readonly token: string | null;
  readonly bodyBytesMax: number;
  /** Longest silence of a stream before a keep-alive comment; the protocol allows 10 s. */
  readonly keepAliveMs: number;
}

export const defaultHttpSettings: HttpSettings = {
  token: null,
  bodyBytesMax: 8 * 1024 * 1024,
  keepAliveMs: 8_000,
};

export interface WorkerServices {
  readonly lifecycle: Lifecycle;
  readonly journal: UsageJournal;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly clock: Clock;
  /** null when no traces are sent. */
  readonly tracing: Tracing | null;
  readonly settings: HttpSettings;
  /** Warnings for whoever watches over the worker; [] when all is well. */
  readonly warnings: () => readonly string[];
}

/** Hono's name for what the middleware leaves for the routes. */
export interface AppEnv {
  Variables: {
    readonly requestId: string;
    readonly context: RequestContext;
  };
}
