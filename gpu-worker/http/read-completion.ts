/** What a completion of prompts asks for, read from its parsed body. */
import { completionRequestSchema, type CompletionRequest } from '../protocol.ts';
import { readPrompts } from './completion-prompt.ts';
import { ApiError } from './errors.ts';
import {
  checkCombinations,
  outputTokensMax,
  textGrammar,
  soldModel,
  toEngineRequest,
  usageAsked,
} from './generation.ts';
import { requireModel } from './models.ts';
import { parseRequest } from './parse-request.ts';
import type { ReadPrompts, TextModel } from './text-model.ts';

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
  const echo = body.echo ?? false;
  return {
    requests,
    user: body.user ?? null,
    stream: body.stream ?? false,
    usage: usageAsked(body),
    prompts: prompts.map(({ tokens, text, hiddenTokens }) => ({
      text: echo ? text : '',
      hiddenTokens,
      firstTokenBytes: [...model.tokenizer.tokenBytes(tokens[0])],
    })),
    choicesEach: body.n ?? 1,
    echo,
    logprobs,
    promptLogprobs: body.prompt_logprobs ?? null,
  };
}

/** How many alternatives the engine is to report per prompt token, if any. */
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
