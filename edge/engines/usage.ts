/** Reads the token counts of a worker of any make into the canonical usage row. */
import { z } from 'zod';
import { tokenCountMax } from '../../gpu-worker/protocol/limits.ts';
import { billedBlockTokens } from '../../gpu-worker/protocol/usage.ts';
import type { Usage } from '../money.ts';

const count = z.int().min(0).max(tokenCountMax);

/** Counts as any engine writes them: an absent detail is unknown, not 0. */
const usageSchema = z.looseObject({
  prompt_tokens: count,
  completion_tokens: count.nullish(),
  prompt_tokens_details: z.looseObject({ cached_tokens: count.nullish() }).nullish(),
  completion_tokens_details: z.looseObject({ reasoning_tokens: count.nullish() }).nullish(),
  /** SGLang's place for the tokens of reasoning. */
  reasoning_tokens: count.nullish(),
  /** DeepSeek's name for the cached tokens of the prompt. */
  prompt_cache_hit_tokens: count.nullish(),
});
export type EngineUsage = z.infer<typeof usageSchema>;

const countsSchema = z.looseObject({
  usage: z.unknown().optional(),
  /** llama.cpp's measurements, which say how many prompt tokens its cache had. */
  timings: z.looseObject({ cache_n: count.nullish() }).nullish().catch(null),
});

/** Usage may be there without a count: `{}`, or null in its fields, until it is known. */
const uncountedSchema = z.looseObject({ prompt_tokens: z.null().optional() }).nullish();

/**
 * The counts in an event or in a whole answer: null if there are none.
 * @throws ZodError for counts that are none.
 */
export function readCounts(json: unknown): EngineUsage | null {
  const { usage: stated, timings } = countsSchema.parse(json);
  const parsed = usageSchema.safeParse(stated);
  if (!parsed.success && uncountedSchema.safeParse(stated).success) return null;
  if (!parsed.success) throw parsed.error;
  const usage = parsed.data;
  const cached = timings?.cache_n ?? null;
  const isStated = cachedTokens(usage) !== null || cached === null;
  return isStated ? usage : { ...usage, prompt_cache_hit_tokens: cached };
}

/** Returns null if the engine does not state cached tokens. */
export function cachedTokens(usage: EngineUsage): number | null {
  return usage.prompt_tokens_details?.cached_tokens ?? usage.prompt_cache_hit_tokens ?? null;
}

/**
 * The canonical row, its cached tokens in whole billed blocks. Details that exceed their total are
 * cut to it, so that a worker's slip never makes a negative count. Cached tokens that the worker
 * does not state, or is not known to state, are unknown: nobody can tell, so all of the prompt is
 * uncached.
 */
export function fromWorkerUsage(
  wire: EngineUsage,
  worker: { readonly reportsCachedTokens: boolean },
): Usage {
  const completion = wire.completion_tokens ?? 0;
  const stated = worker.reportsCachedTokens ? cachedTokens(wire) : null;
  const found = Math.min(stated ?? 0, wire.prompt_tokens);
  const cached = found - (found % billedBlockTokens);
  const reasoningStated =
    wire.completion_tokens_details?.reasoning_tokens ?? wire.reasoning_tokens ?? 0;
  const reasoning = Math.min(reasoningStated, completion);
  return {
    inputUncached: wire.prompt_tokens - cached,
    inputCached: stated === null ? null : cached,
    outputText: completion - reasoning,
    outputReasoning: reasoning,
  };
}
