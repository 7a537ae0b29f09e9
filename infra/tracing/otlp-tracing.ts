/** Sends traces as OTLP over HTTP, by OpenTelemetry's SDK. */
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { Context, Tracer } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { EndedSpan, RequestTrace, Tracing } from './tracing.ts';

export interface OtlpOptions {
  readonly service: string;
  /** Traces are posted to `<endpoint>/v1/traces`. */
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  /** A trace that begins here is sent with this probability; others go by their beginning. */
  readonly ratio: number;
}

/** A collector that does not answer keeps nothing waiting for longer. */
const exportMsMax = 5_000;
/** A request has some seven spans; those that come too fast for the collector are dropped. */
const waitingSpansMax = 16_384;

export function createOtlpTracing(options: OtlpOptions): Tracing {
  const { service, endpoint, headers, ratio } = options;
  const exporter = new OTLPTraceExporter({
    url: `${endpoint.replace(/\/+$/, '')}/v1/traces`,
    headers: { ...headers },
    timeoutMillis: exportMsMax,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': service }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
    spanProcessors: [
      new BatchSpanProcessor({
        exporter,
        exportTimeoutMillis: exportMsMax,
        maxQueueSize: waitingSpansMax,
      }),
    ],
  });
  const tracer = provider.getTracer('sift');
  return {
    begin: ({ headers: sent, startedAtMs }) =>
      new OtlpTrace(tracer, propagator.extract(ROOT_CONTEXT, sent, getter), startedAtMs),
    flush: () => provider.forceFlush().catch(() => {}),
    close: () => provider.shutdown().catch(() => {}),
  };
}

const propagator = new W3CTraceContextPropagator();

/** Asks headers by name alone. */
const getter = {
  get: (headers: { get(name: string): string | null }, name: string) =>
    headers.get(name) ?? undefined,
  keys: () => ['traceparent', 'tracestate'],
};

const setter = {
  set: (headers: Record<string, string>, name: string, value: string) =>
    void (headers[name] = value),
};

class OtlpTrace implements RequestTrace {
  readonly headers: Readonly<Record<string, string>>;
  readonly #tracer: Tracer;
  readonly #context: Context;

  constructor(tracer: Tracer, parent: Context, startTime: number) {
    this.#tracer = tracer;
    const span = tracer.startSpan('request', { kind: SpanKind.SERVER, startTime }, parent);
    this.#context = trace.setSpan(parent, span);
    const headers: Record<string, string> = {};
    propagator.inject(this.#context, headers, setter);
    this.headers = headers;
  }

  end({ name, startedAtMs, durationMs, attributes, error, stages }: EndedSpan): void {
    const span = trace.getSpan(this.#context);
    if (!span?.isRecording()) return;
    span.updateName(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null) span.setAttribute(key, value);
    }
    if (error !== null) {
      span.setAttribute('error.type', error);
      span.setStatus({ code: SpanStatusCode.ERROR });
    }
    for (const stage of stages) {
      const startTime = startedAtMs + stage.fromMs;
      this.#tracer
        .startSpan(stage.name, { startTime }, this.#context)
        .end(startedAtMs + stage.toMs);
    }
    span.end(startedAtMs + durationMs);
  }
}
