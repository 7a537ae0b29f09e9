/** The access log: one line for each request that is over. */
import type { Log } from '../../infra/log.ts';
import type { EndedRequest } from './ended-request.ts';
import type { Observe } from './request-record.ts';

/** Routes that programs ask every few seconds, of which nobody reads. */
const quietRoutes = new Set(['/health', '/ready', '/metrics', '/internal/workers/heartbeat']);

export function accessLog(log: Log): Observe {
  return (ended) => {
    if (ended.status < 400 && quietRoutes.has(ended.route)) return;
    log('info', 'request', { ...whatIsKnown(lineOf(ended)) });
  };
}

function lineOf(ended: EndedRequest) {
  const { usage, stages } = ended;
  const { admitted, placed, began } = stages;
  return {
    requestId: ended.requestId,
    method: ended.method,
    route: ended.route,
    status: ended.status,
    code: ended.code,
    tenant: ended.tenant,
    keyId: ended.keyId,
    model: ended.model,
    alias: ended.alias,
    stream: ended.stream,
    worker: ended.worker,
    outcome: ended.outcome,
    inputUncached: usage?.inputUncached,
    inputCached: usage?.inputCached,
    outputText: usage?.outputText,
    outputReasoning: usage?.outputReasoning,
    costNanoUsd: ended.costNanoUsd,
    queuedMs: between(admitted, placed),
    firstTokenMs: rounded(began),
    durationMs: rounded(ended.durationMs),
  };
}

function whatIsKnown(line: ReturnType<typeof lineOf>): object {
  return Object.fromEntries(
    Object.entries(line).filter(([, value]) => value !== null && value !== undefined),
  );
}

function between(from: number | undefined, to: number | undefined): number | null {
  return from === undefined || to === undefined ? null : rounded(to - from);
}

/** Milliseconds with one decimal. */
function rounded(ms: number): number;
function rounded(ms: number | undefined): number | null;
function rounded(ms: number | undefined): number | null {
  return ms === undefined ? null : Math.round(ms * 10) / 10;
}
