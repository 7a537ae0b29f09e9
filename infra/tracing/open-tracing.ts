/** Opens the traces of a program on Node. */
import type { TracingChoice } from './tracing-settings.ts';
import type { Tracing } from './tracing.ts';

/**
 * The SDK is loaded where traces are sent, and only there.
 * @param service the program's name in its traces.
 */
export async function openTracing(service: string, choice: TracingChoice): Promise<Tracing | null> {
  if (choice === null) return null;
  const { createOtlpTracing } = await import('./otlp-tracing.ts');
  return createOtlpTracing({ service, ...choice });
}
