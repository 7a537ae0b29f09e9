/** A clock that moves when told, and heartbeats as a worker sends them. */
import type { Heartbeat } from '../../../gpu-worker/protocol/heartbeat.ts';

export interface ManualClock {
  nowMs(): number;
  advance(ms: number): void;
}

export function manualClock(startMs = Date.UTC(2026, 0, 1)): ManualClock {
  let nowMs = startMs;
  return {
    nowMs: () => nowMs,
    advance(ms) {
      nowMs += ms;
    },
  };
}

export function heartbeatOf(options: {
  readonly id: string;
  readonly url?: string;
  readonly epoch?: number;
  readonly start?: string;
  readonly state?: Heartbeat['state'];
  readonly model?: string;
  readonly tokens?: number;
  readonly running?: number;
  readonly waiting?: number;
}): Heartbeat {
  return {
    id: options.id,
    url: options.url ?? `http://${options.id}.test`,
    epoch: options.epoch ?? 1,
    ...(options.start !== undefined && { start: options.start }),
    engine: 'sift',
    state: options.state ?? 'ready',
    models: [
      {
        id: options.model ?? 'tiny',
        revision: 'r1',
        tokenizer: 't1',
        block_tokens: 64,
        context_length: 4_096,
      },
    ],
    capacity: { sequences: 8, waiting: 32, step_tokens: 512, cache_tokens: 65_536 },
    load: {
      running_sequences: options.running ?? 0,
      waiting_sequences: options.waiting ?? 0,
      tokens_in_flight: options.tokens ?? 0,
      blocks_total: 1_024,
      blocks_free: 1_024,
      blocks_cached: 0,
    },
  };
}
