/** Stops a worker in the order that loses nothing: refuse, tell the edge, finish, record, leave. */
import type { Tracing } from '../../infra/tracing/tracing.ts';
import type { HeartbeatSender } from './heartbeat.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { RunningServer } from './server.ts';
import type { UsageJournal } from './journal/usage-journal.ts';

/** Answers get so much time, beyond the engine's grace, to reach their clients. */
const flushMs = 1_000;

export interface ShutDownOptions {
  readonly lifecycle: Lifecycle;
  readonly server: RunningServer;
  readonly journal: UsageJournal;
  readonly tracing: Tracing | null;
  /** Null where no edge was told of this worker. */
  readonly heartbeat: HeartbeatSender | null;
  /** Requests in flight may go on for so long. */
  readonly graceMs: number;
}

export async function shutDown(options: ShutDownOptions): Promise<void> {
  const { lifecycle, server, journal, heartbeat, graceMs } = options;
  lifecycle.drain();
  await heartbeat?.beat();
  const model = lifecycle.state().model;
  await Promise.all([
    model?.engine.close({ graceMs }),
    server.close({ graceMs: graceMs + flushMs }),
  ]);
  await model?.text.close();
  await heartbeat?.stop();
  await journal.close();
  await options.tracing?.close();
}
