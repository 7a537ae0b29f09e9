/** Reads a completion's request, of one prompt or several, out of its parsed body. */
import { at } from '../../at.ts';
import { completionRequestSchema } from '../../protocol/requests.ts';
import type { CompletionRequest } from '../../protocol/requests.ts';
import { readPrompts } from './completion-prompt.ts';
import type { CompletionPrompt } from './completion-prompt.ts';
import { ApiError } from '../api-error.ts';
import {
  checkCombinations,
  outputTokensMax,
  refuseLongLogprobs,
  refuseManyLogprobs,
  textGrammar,
  soldModel,
  toEngineRequest,
  usageAsked,
} from './engine-request.ts';
import { requireModel } from '../models.ts';
import { parseRequest } from './parse-request.ts';
import type { ReadPrompts, TextModel } from '../text/text-model.ts';

/** Bounds the characters of prompts that an answer repeats. */
const echoCharactersMax = 2 ** 21;

/** @throws ApiError 400, 404 */
export function readCompletion(own: TextModel, json: unknown, id: string): ReadPrompts {
  const body = parseRequest(completionRequestSchema, json);
  const model = soldModel(own, body);
  requireModel(model, body.model);
  checkCombinations(body);
  checkCompletionCombinations(body);
  const prompts = readPrompts(model, body);
  const logprobs = body.logprobs ?? null;
  const grammar = textGrammar(model, body);
  const requests = prompts.map(({ tokens }, index) =>
    toEngineRequest(model, {
      body,
      id: prompts.length === 1 ? id : `${id}#${index}`,
      promptTokens: tokens,
      outputTokensMax: outputTokensMax(model, {
        asked: body.max_tokens ?? null,
        promptTokens: tokens.length,
        promptParam: 'prompt',
      }),
      logprobs,
      promptLogprobs: promptAlternatives(body),
      reasoningEndToken: null,
      grammar,
    }),
  );
  refuseManyLogprobs(requests, body.echo ? 'logprobs' : 'prompt_logprobs');
  const stream = body.stream ?? false;
  refuseLongLogprobs(requests, { stream, param: 'logprobs' });
  const echo = body.echo ?? false;
  if (echo) refuseLongEcho(prompts, body.n ?? 1);
  return {
    requests,
    user: body.user ?? null,
    stream,
    usage: usageAsked(body),
    prompts: prompts.map(({ tokens, text, hiddenTokens }) => ({
      text: echo ? text : '',
      hiddenTokens,
      firstTokenBytes: [...model.tokenizer.tokenBytes(at(tokens, 0))],
    })),
    choicesEach: body.n ?? 1,
    echo,
    logprobs,
    promptLogprobs: body.prompt_logprobs ?? null,
  };
}

/** A prompt is written out for each of its choices. @throws ApiError 400 */
function refuseLongEcho(prompts: readonly CompletionPrompt[], choicesEach: number): void {
  const characters = choicesEach * prompts.reduce((sum, { text }) => sum + text.length, 0);
  if (characters <= echoCharactersMax) return;
  throw new ApiError(
    'invalid_value',
    `'echo' would write ${characters} characters of prompts, those of all choices together; one ` +
      `request may have at most ${echoCharactersMax}.`,
    { param: 'echo' },
  );
}

/** Counts the alternatives that the engine is to report per prompt token, if any. */
function promptAlternatives(body: CompletionRequest): number | null {
  const echoed = body.echo ? (body.logprobs ?? null) : null;
  const asked = body.prompt_logprobs ?? null;
  return echoed === null ? asked : Math.max(echoed, asked ?? 0);
}

function checkCompletionCombinations(body: CompletionRequest): void {
  if (body.echo && typeof body.suffix === 'string') {
    throw new ApiError('invalid_value', "'echo' and 'suffix' can't be combined.", {
      param: 'echo',
    });
  }
}
