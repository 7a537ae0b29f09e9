/** `GET /health`: 200 when the worker takes requests, else 503 with the reason. Open to all. */
import type { Context } from 'hono';
import type { EngineLoad } from '../engine/request.ts';
import type { Health, Load } from '../protocol/heartbeat.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';

export function answerHealth(c: Context<AppEnv>, services: WorkerServices): Response {
  const { status, reason, model } = services.lifecycle.state();
  const warnings = services.warnings();
  const health: Health = {
    status,
    reason,
    models: model ? [model.id] : [],
    load: model && status !== 'failed' ? toWireLoad(model.engine.load()) : null,
    ...(warnings.length > 0 && { warnings: [...warnings] }),
  };
  return c.json(health, status === 'ready' ? 200 : 503);
}

export function toWireLoad(load: EngineLoad): Load {
  return {
    running_sequences: load.runningSequences,
    waiting_sequences: load.waitingSequences,
    tokens_in_flight: load.tokensInFlight,
    blocks_total: load.blocksTotal,
    blocks_free: load.blocksFree,
    blocks_cached: load.blocksCached,
  };
}
