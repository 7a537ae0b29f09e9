/** Refuses what the engine can't compute, before it takes a place in the queue. */
import { blocksFor } from './block-manager.ts';
import type { EngineError, EngineRequest } from './request.ts';
import { tokensStored } from './sequence.ts';

/** Guards the engine's memory; the HTTP side has lower limits of its own. */
const choicesMax = 128;

export interface RequestBounds {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly blocks: number;
}

/** The reason to refuse the request, or null. */
export function checkRequest(request: EngineRequest, bounds: RequestBounds): EngineError | null {
  const invalid = firstInvalid(request, bounds);
  if (invalid !== null) return { kind: 'invalid', message: invalid, retryAfterSeconds: null };
  const tooLong = tooLongMessage(request, bounds);
  if (tooLong !== null) return { kind: 'too-long', message: tooLong, retryAfterSeconds: null };
  return null;
}

function firstInvalid(request: EngineRequest, { vocabSize }: RequestBounds): string | null {
  const { sampling } = request;
  const isToken = (token: number): boolean =>
    Number.isInteger(token) && token >= 0 && token < vocabSize;

  const strayPrompt = request.promptTokens.find((token) => !isToken(token));
  const checks: readonly (readonly [boolean, string])[] = [
    [request.promptTokens.length > 0, 'the prompt is empty'],
    [strayPrompt === undefined, `prompt token ${strayPrompt} is not in 0..${vocabSize - 1}`],
    [
      isCount(request.choices, choicesMax) && request.choices > 0,
      `n must be an integer in 1..${choicesMax}, not ${request.choices}`,
    ],
    [
      isCount(request.outputTokensMax, Number.MAX_SAFE_INTEGER),
      `the output limit must be an integer of at least 0, not ${request.outputTokensMax}`,
    ],
    [request.stopStrings.every((text) => text !== ''), 'a stop string is empty'],
    [request.stopTokens.every(isToken), `a stop token is not in 0..${vocabSize - 1}`],
    [
      isCount(request.logprobs ?? 0, vocabSize),
      `logprobs must be in 0..${vocabSize}, not ${request.logprobs}`,
    ],
    [
      isCount(request.promptLogprobs ?? 0, vocabSize),
      `prompt logprobs must be in 0..${vocabSize}, not ${request.promptLogprobs}`,
    ],
    [
      request.grammar === null || !request.ignoreEnd,
      'an answer in a grammar ends where the grammar does, so its end can’t be ignored',
    ],
    [sampling.temperature >= 0 && sampling.temperature < Infinity, 'temperature is below 0'],
    [sampling.topP > 0 && sampling.topP <= 1, 'top_p is not in (0, 1]'],
    [isCount(sampling.topK, Number.MAX_SAFE_INTEGER), 'top_k is not an integer of at least 0'],
    [sampling.minP >= 0 && sampling.minP <= 1, 'min_p is not in [0, 1]'],
    [
      sampling.seed === null || Number.isSafeInteger(sampling.seed + request.choices),
      'the seed is not a safe integer',
    ],
    [
      sampling.repetitionPenalty > 0 && sampling.repetitionPenalty < Infinity,
      'the repetition penalty is not above 0',
    ],
    [Number.isFinite(sampling.frequencyPenalty), 'the frequency penalty is not a number'],
    [Number.isFinite(sampling.presencePenalty), 'the presence penalty is not a number'],
    [
      sampling.logitBias.every(([token, bias]) => isToken(token) && Number.isFinite(bias)),
      'logit_bias names a token out of range, or a bias that is not a number',
    ],
  ];
  return checks.find(([holds]) => !holds)?.[1] ?? null;
}

function tooLongMessage(request: EngineRequest, bounds: RequestBounds): string | null {
  const prompt = request.promptTokens.length;
  const output = request.outputTokensMax;
  const asked = `${prompt} prompt tokens and up to ${output} output tokens`;
  if (prompt + output > bounds.contextLength) {
    return `${asked} are ${prompt + output} tokens; the context length is ${bounds.contextLength}`;
  }
  const blocks = blocksFor(tokensStored({ promptLength: prompt, outputTokensMax: output }));
  if (blocks > bounds.blocks) {
    return `${asked} need ${blocks} cache blocks; this engine has ${bounds.blocks}`;
  }
  return null;
}

function isCount(count: number, max: number): boolean {
  return Number.isInteger(count) && count >= 0 && count <= max;
}
