/** `POST /tokenize`: the prompt tokens of a conversation, without computing anything of it. */
import type { Context } from 'hono';
import { tokenizeRequestSchema, type TokenizeResponse } from '../protocol.ts';
import { renderChat } from './chat-prompt.ts';
import { requireModel } from './models.ts';
import { parseRequest } from './parse-request.ts';
import { readJson } from './read-json.ts';
import type { AppEnv, Services } from './services.ts';

/** @throws ApiError as a chat completion of the same fields would. */
export async function answerTokenize(c: Context<AppEnv>, services: Services): Promise<Response> {
  const model = services.lifecycle.modelForRequest();
  const body = parseRequest(tokenizeRequestSchema, await readJson(c));
  requireModel(model, body.model);
  const { tokens } = renderChat(model, body);
  return c.json<TokenizeResponse>({
    count: tokens.length,
    max_model_len: model.engine.description.contextLength,
    tokens: Array.from(tokens),
  });
}
