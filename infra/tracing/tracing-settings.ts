/** The settings of traces, by OpenTelemetry's own names, for the edge and for workers. */
import { z } from 'zod';
import type { Settings, SettingsOf } from '../settings.ts';
import type { OtlpOptions } from './otlp-tracing.ts';

/** Reads `name=value,name=value`, each value percent-encoded, as OpenTelemetry's programs do. */
const headers = z.string().transform((text, context) => {
  const read: Record<string, string> = {};
  for (const part of text.split(',').map((each) => each.trim())) {
    const [, name, value] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([\x21-\x7e]*)$/.exec(part) ?? [];
    const decoded = value === undefined ? null : decode(value);
    if (name === undefined || decoded === null) {
      // The message does not quote the part, which may hold a token.
      context.addIssue({ code: 'custom', message: 'expected name=value,name=value' });
      return z.NEVER;
    }
    read[name] = decoded;
  }
  return read;
});

function decode(value: string): string | null {
  try {
    return decodeURIComponent(value);
  } catch {
    return null;
  }
}

export const tracingSettings = {
  otlpEndpoint: {
    env: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    help: 'traces are sent to <it>/v1/traces as OTLP over HTTP',
    defaultText: 'no traces',
    schema: z.url({ protocol: /^https?$/, error: 'must be an http(s) URL' }).optional(),
  },
  otlpHeaders: {
    env: 'OTEL_EXPORTER_OTLP_HEADERS',
    help: 'headers of that request: name=value,name=value, percent-encoded',
    defaultText: 'none',
    schema: headers.default({}),
  },
  otlpRatio: {
    env: 'OTEL_TRACES_SAMPLER_ARG',
    help: 'the part, 0 to 1, of the traces that begin here which are sent',
    schema: z.coerce.number().min(0).max(1).default(1),
  },
} satisfies Settings;

/** null when no traces are sent. */
export type TracingChoice = Pick<OtlpOptions, 'endpoint' | 'headers' | 'ratio'> | null;

export function tracingChoice(read: SettingsOf<typeof tracingSettings>): TracingChoice {
  const { otlpEndpoint: endpoint, otlpHeaders, otlpRatio: ratio } = read;
  return endpoint === undefined ? null : { endpoint, headers: otlpHeaders, ratio };
}
