/** The span of a request in its trace, by OpenTelemetry's conventions for HTTP and for GenAI. */
import type { EndedSpan } from '../../infra/tracing/tracing.ts';
import type { EndedRequest, Stage } from './ended-request.ts';

export function spanOf(ended: EndedRequest): EndedSpan {
  const { method, route, status, code, usage } = ended;
  const isFault = status >= 500 || (status < 400 && code !== null);
  return {
    name: `${method} ${route}`,
    startedAtMs: ended.startedAtMs,
    durationMs: ended.durationMs,
    attributes: {
      'http.request.method': method,
      'http.route': route,
      'http.response.status_code': status,
      'gen_ai.operation.name': ended.model === null ? null : 'chat',
      'gen_ai.provider.name': ended.model === null ? null : 'sift',
      'gen_ai.request.model': ended.alias ?? ended.model,
      'gen_ai.response.model': ended.model,
      'gen_ai.response.id': ended.requestId,
      'gen_ai.usage.input_tokens': usage && usage.inputUncached + (usage.inputCached ?? 0),
      'gen_ai.usage.cache_read.input_tokens': usage && usage.inputCached,
      'gen_ai.usage.output_tokens': usage && usage.outputText + usage.outputReasoning,
      'sift.tenant': ended.tenant,
      'sift.key_id': ended.keyId,
      'sift.worker': ended.worker,
      'sift.cost_nano_usd': ended.costNanoUsd,
      'sift.code': code,
    },
    error: isFault ? (code ?? String(status)) : null,
    stages: stagesOf(ended.stages),
  };
}

/** A stage of the trace lasts from one stage of the request to the next. */
const spans: readonly (readonly [name: string, from: Stage | 'start', to: Stage])[] = [
  ['authenticate', 'start', 'authenticated'],
  ['admit', 'authenticated', 'admitted'],
  ['queue', 'admitted', 'placed'],
  ['prefill', 'placed', 'began'],
  ['decode', 'began', 'ended'],
  ['settle', 'ended', 'settled'],
];

function stagesOf(reached: EndedRequest['stages']): EndedSpan['stages'] {
  const atMs = (stage: Stage | 'start') => (stage === 'start' ? 0 : reached[stage]);
  return spans.flatMap(([name, from, to]) => {
    const fromMs = atMs(from);
    const toMs = atMs(to);
    return fromMs === undefined || toMs === undefined ? [] : [{ name, fromMs, toMs }];
  });
}
