/** `POST /v1/completions`: prompts of text or token ids, continued; streamed or at once. */
import type { Context } from 'hono';
import { completionRequestSchema, type CompletionRequest } from '../protocol.ts';
import { readPrompts } from './completion-prompt.ts';
import { completionChunks, gatherCompletion } from './completion-response.ts';
import { ApiError } from './errors.ts';
import { checkCombinations, outputTokensMax, textGrammar, toEngineRequest } from './generation.ts';
import { requireModel } from './models.ts';
import { parseRequest } from './parse-request.ts';
import { readJson } from './read-json.ts';
import { responseHead, streamedUsage } from './response-head.ts';
import { runRequest } from './run.ts';
import type { AppEnv, Services } from './services.ts';
import { streamEvents } from './sse.ts';

/** @throws ApiError */
export async function answerCompletion(c: Context<AppEnv>, services: Services): Promise<Response> {
  const access = c.get('access');
  const model = services.lifecycle.modelForRequest();
  const body = parseRequest(completionRequestSchema, await readJson(c));
  access.user = body.user ?? null;
  requireModel(model, body.model);
  checkCombinations(body);
  checkCompletionCombinations(body);

  const prompts = readPrompts(model, body);
  const logprobs = body.logprobs ?? null;
  const grammar = textGrammar(model, body);
  const requests = prompts.map((prompt, index) =>
    toEngineRequest(model, {
      body,
      id: prompts.length === 1 ? access.id : `${access.id}#${index}`,
      promptTokens: prompt.tokens,
      outputTokensMax: outputTokensMax(model, {
        asked: body.max_tokens ?? null,
        promptTokens: prompt.tokens.length,
        promptParam: 'prompt',
        body,
      }),
      logprobs,
      promptLogprobs: promptAlternatives(body),
      reasoningEndToken: null,
      grammar,
    }),
  );
  const events = runRequest(services, { model, access, requests, promptParam: 'prompt' });
  const options = {
    head: responseHead(services, model, { access, idPrefix: 'cmpl' }),
    prompts,
    tokenBytes: (token: number) => model.tokenizer.tokenBytes(token),
    choicesEach: body.n ?? 1,
    echo: body.echo ?? false,
    logprobs,
    promptLogprobs: body.prompt_logprobs ?? null,
  };
  if (!body.stream) return c.json(await gatherCompletion(events, options));
  return streamEvents(c, services, completionChunks(events, options, streamedUsage(body)));
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
