/** The fields that answers and streamed events of both endpoints begin with, and their usage. */
import type { EngineUsage } from '../../engine/request.ts';
import type { Usage } from '../../protocol/usage.ts';
import type { ServedModel } from '../lifecycle.ts';
import type { WorkerServices } from '../worker-services.ts';
import type { UsageAsked } from '../text/text-model.ts';
import { toWireUsage } from './wire-usage.ts';

export interface ResponseHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

export function responseHead(
  services: WorkerServices,
  model: ServedModel,
  { requestId, idPrefix }: { requestId: string; idPrefix: 'chatcmpl' | 'cmpl' },
): ResponseHead {
  const { revision, backend } = model.engine.description;
  return {
    id: `${idPrefix}-${requestId}`,
    created: Math.floor(services.clock.wallMs() / 1000),
    model: model.id,
    system_fingerprint: `fp_${revision.slice(0, 10)}_${backend}`,
  };
}

/** Decides which events of a stream carry usage. */
export interface StreamedUsage {
  /** The `usage` field of an event with choices: absent, null, or the usage so far. */
  during(usage: EngineUsage): { readonly usage?: Usage | null };
  readonly running: boolean;
  /** True if one more event, without choices, carries the final usage. */
  readonly atEnd: boolean;
}

export function streamedUsage({ atEnd, running }: UsageAsked): StreamedUsage {
  return {
    atEnd,
    running,
    during(usage) {
      if (running) return { usage: toWireUsage(usage) };
      return atEnd ? { usage: null } : {};
    },
  };
}
