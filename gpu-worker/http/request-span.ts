/** The span of a request in its trace, by OpenTelemetry's conventions for HTTP and for GenAI. */
import type { EndedSpan } from '../../infra/tracing/tracing.ts';
import type { RequestContext, RunRecord } from './request-context.ts';

export function spanOf(
  { id, route, run }: Pick<RequestContext, 'id' | 'route' | 'run'>,
  answer: {
    readonly method: string;
    readonly status: number;
    readonly outcome: RunRecord['outcome'];
    readonly durationMs: number;
  },
): Omit<EndedSpan, 'startedAtMs'> {
  const { method, status, outcome, durationMs } = answer;
  return {
    name: `${method} ${route}`,
    durationMs,
    attributes: {
      'http.request.method': method,
      'http.route': route,
      'http.response.status_code': status,
      'gen_ai.response.id': id,
      'gen_ai.usage.input_tokens': run?.usage.promptTokens ?? null,
      'gen_ai.usage.cache_read.input_tokens': run?.usage.cachedTokens ?? null,
      'gen_ai.usage.output_tokens': run?.usage.outputTokens ?? null,
    },
    error:
      outcome === 'done' && status < 500 ? null : String(outcome === 'done' ? status : outcome),
    stages: run === null ? [] : stagesOf(run, durationMs),
  };
}

function stagesOf({ prompt }: RunRecord, durationMs: number): EndedSpan['stages'] {
  if (prompt === null) return [];
  const { submittedMs, begunMs, computedMs } = prompt;
  return [
    { name: 'queue', fromMs: submittedMs, toMs: begunMs },
    { name: 'prefill', fromMs: begunMs, toMs: computedMs },
    { name: 'decode', fromMs: computedMs, toMs: durationMs },
  ];
}
