/**
 * Traces of requests in OpenTelemetry's form. A program begins a span for each request; its stages
 * become children when it ends, and so do the spans of programs that are sent its headers (W3C
 * Trace Context). `otlp-tracing.ts` sends them; nothing of the SDK is loaded where it is not used.
 */

export interface Tracing {
  begin(request: {
    /** Those of the request, which may say that it is part of a trace. */
    readonly headers: { get(name: string): string | null };
    /** Unix milliseconds. */
    readonly startedAtMs: number;
  }): RequestTrace;
  /** Sends what has ended. Never rejects. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface RequestTrace {
  /** A request with these headers is part of this trace, under this span. */
  readonly headers: Readonly<Record<string, string>>;
  end(span: EndedSpan): void;
}

export interface EndedSpan {
  readonly name: string;
  readonly startedAtMs: number;
  readonly durationMs: number;
  /** Those that are null are left out. */
  readonly attributes: Readonly<Record<string, string | number | boolean | null>>;
  /** The code of the error that ended it; null when it went well. */
  readonly error: string | null;
  /** Milliseconds from the start of the span. */
  readonly stages: readonly {
    readonly name: string;
    readonly fromMs: number;
    readonly toMs: number;
  }[];
}
