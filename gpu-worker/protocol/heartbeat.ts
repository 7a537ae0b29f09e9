/** The worker's health, its load, and the heartbeats that announce it. */
import { z } from 'zod';
import { tokenCount } from './fields.ts';
import { servedModelsMax } from './limits.ts';

export const loadSchema = z.object({
  running_sequences: tokenCount,
  waiting_sequences: tokenCount,
  /** Tokens still to be computed for the requests in flight. */
  tokens_in_flight: tokenCount,
  blocks_total: tokenCount,
  blocks_free: tokenCount,
  blocks_cached: tokenCount,
});

export type Load = z.infer<typeof loadSchema>;

/** Answered with 200 when ready and 503 otherwise. */
export const healthSchema = z.object({
  status: z.enum(['starting', 'ready', 'draining', 'failed']),
  /** The reason why it is not ready; null when it is. */
  reason: z.string().nullable(),
  models: z.array(z.string()),
  load: loadSchema.nullable(),
  /**
   * Faults that its operator should see to before it stops the worker; absent where there are none.
   */
  warnings: z.array(z.string()).optional(),
});

export type Health = z.infer<typeof healthSchema>;

/** `POST <edge>/internal/workers/heartbeat`, every 5 s. */
export const heartbeatSchema = z.strictObject({
  id: z.string().min(1).max(128),
  /** The edge reaches the worker there. */
  url: z.string().min(1).max(2_000),
  /** Larger at each start of a worker that keeps its data folder; a larger one is younger. */
  epoch: z.int().min(0),
  /** Random at each start, so that no two starts are taken for one. KV of another start is gone. */
  start: z.string().min(8).max(64).optional(),
  engine: z.string().min(1).max(64),
  state: z.enum(['starting', 'ready', 'draining', 'failed']),
  models: z
    .array(
      z.strictObject({
        id: z.string().min(1).max(256),
        revision: z.string().min(1).max(128),
        tokenizer: z.string().min(1).max(128),
        /** Tokens of a KV block; cached tokens are a multiple. */
        block_tokens: z.int().min(1),
        context_length: z.int().min(1),
      }),
    )
    .max(servedModelsMax),
  /** Null until the engine is ready. */
  capacity: z
    .strictObject({
      sequences: tokenCount,
      waiting: tokenCount,
      step_tokens: tokenCount,
      cache_tokens: tokenCount,
    })
    .nullable(),
  load: loadSchema.nullable(),
});

export type Heartbeat = z.infer<typeof heartbeatSchema>;
