/** What the routes are given. `main.ts` makes these once; tests make their own. */
import type { Logger } from 'pino';
import type { EngineUsage } from '../engine/request.ts';
import type { Clock } from './clock.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Metrics } from './metrics.ts';
import type { UsageJournal } from './journal/usage-journal.ts';

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

export interface Services {
  readonly lifecycle: Lifecycle;
  readonly journal: UsageJournal;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly settings: HttpSettings;
  /** For whoever watches over the worker; [] when all is well. */
  readonly warnings: () => readonly string[];
}

/** What is known of a request once it has ended; the route fills it in. */
export interface Access {
  readonly id: string;
  readonly startedMs: number;
  /** Aborted when nobody waits for the answer any more: the client left, or a part of it failed. */
  readonly stop: AbortController;
  /** The route's pattern: a path of the client's making must not become a label. */
  route: string;
  outcome: 'done' | 'aborted' | 'failed';
  usage: EngineUsage | null;
  firstTokenMs: number | null;
  user: string | null;
  /** Set by a route that answers with a stream; `end` is then called when the stream ends. */
  streaming: boolean;
  end(status: number): void;
}

/** Hono's name for what the middleware leaves for the routes. */
export interface AppEnv {
  Variables: {
    readonly requestId: string;
    readonly access: Access;
  };
}
