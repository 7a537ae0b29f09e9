/**
 * Explains why a worker's cache had no more of a prompt, out of what the edge knows: the prompts
 * that were lately answered, the prefix index, where the request was placed, and what the worker
 * says it had.
 */
import { billedBlockTokens } from '../../gpu-worker/protocol/usage.ts';
import type { CacheMissReason } from '../dialects/cache-miss-reason.ts';
import type { Usage } from '../money.ts';
import { placeAfter } from '../prefix/prompt-trail.ts';
import type { PromptTrail, TrailPlace } from '../prefix/prompt-trail.ts';
import type { SeenPrompt } from '../tenant/admission-contract.ts';
import type { PrefixHits, PreparedRequest } from './prepared-request.ts';

export interface PromptHistory {
  readonly prefixHits: PrefixHits;
  readonly seenPrompt: SeenPrompt | null;
}

type Prompt = Pick<PreparedRequest, 'trail' | 'promptBytes'>;
type InputTokens = Pick<Usage, 'inputCached' | 'inputUncached'>;

/**
 * Tells why the rest of a prompt was computed; null if there is nothing to tell.
 * @param worker the one that answered, or that probably will.
 */
export function explainMiss(
  { trail }: Pick<Prompt, 'trail'>,
  { prefixHits, seenPrompt }: PromptHistory,
  answer: InputTokens & { readonly worker: string },
): CacheMissReason | null {
  const { inputCached, inputUncached, worker } = answer;
  if (trail === null || inputCached === null) return null;
  const prompt = inputCached + inputUncached;
  // The last token is always computed, so this much of it can never be cached.
  if (prompt <= billedBlockTokens) return { type: 'too_short' };
  if (inputUncached <= billedBlockTokens) return null;

  const own = bytesOn(prefixHits, (each) => each === worker);
  const elsewhere = bytesOn(prefixHits, (each) => each !== worker);
  if (seenPrompt === null) {
    // The index promises what a worker is about to have, too: that alone says nothing.
    const isNew = inputCached === 0 && own === 0 && elsewhere === 0;
    return { type: isNew ? 'new_conversation' : 'unknown' };
  }
  const place = placeAfter(trail, seenPrompt.marks);
  const seen = prompt * seenShare(trail, place);
  if (isFewer(inputCached, seen)) {
    const isElsewhere = elsewhere > own || (own === 0 && seenPrompt.worker !== worker);
    return { type: isElsewhere ? 'other_worker' : 'evicted' };
  }
  if (place === null) return { type: 'unknown' };
  if (seenPrompt.isWhole) return { type: 'new_messages', ...placed(place) };
  // More was cached than the prompts that are remembered have in common with this one.
  if (isFewer(seen, inputCached)) return { type: 'unknown' };
  return { type: 'first_difference', ...placed(place) };
}

/** Tells before a request is run what would probably be missed, and why. */
export function predictMiss(
  prompt: Prompt,
  history: PromptHistory,
  tokens: { readonly prompt: number; readonly cached: number },
): CacheMissReason | null {
  const { trail } = prompt;
  const { prefixHits, seenPrompt } = history;
  if (trail === null) return null;
  const place = seenPrompt && placeAfter(trail, seenPrompt.marks);
  const seen = seenPrompt === null ? 0 : seenShare(trail, place);
  const deepest = prefixHits.toSorted((a, b) => b.bytes - a.bytes)[0];
  // The index has whole chunks alone; a prompt that is shorter is known by its trail.
  const isIndexed = prompt.promptBytes * seen >= indexedBytesMin;
  const cached = isIndexed
    ? tokens.cached
    : Math.max(tokens.cached, wholeBlocks(tokens.prompt * seen));
  return explainMiss(prompt, history, {
    inputCached: cached,
    inputUncached: tokens.prompt - cached,
    worker: deepest?.worker ?? seenPrompt?.worker ?? '',
  });
}

/** Twice the smallest chunk of the index: that much in common has a chunk in common. */
const indexedBytesMin = 4_096;

/**
 * true when the worker had far fewer tokens than were expected. Text has more tokens in some places
 * than in others, so what is expected of a share of it is not exact.
 */
function isFewer(tokens: number, expected: number): boolean {
  return tokens + billedBlockTokens < expected * 0.75;
}

function wholeBlocks(tokens: number): number {
  return Math.floor(tokens / billedBlockTokens) * billedBlockTokens;
}

function bytesOn(hits: PrefixHits, includes: (worker: string) => boolean): number {
  return Math.max(0, ...hits.filter(({ worker }) => includes(worker)).map(({ bytes }) => bytes));
}

function seenShare(trail: PromptTrail, place: TrailPlace | null): number {
  if (trail.characters === 0) return 0;
  const reached = trail.parts.reduce((sum, part) => sum + part.characters, 0);
  return (place === null ? reached : place.before) / trail.characters;
}

function placed({ kind, index, character, end }: TrailPlace) {
  return {
    part: kind === 'text' ? ('prompt' as const) : kind,
    message: kind === 'message' ? index : null,
    character,
    character_end: end,
  };
}
