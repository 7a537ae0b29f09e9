/** `POST /tokenize`: the prompt tokens of a conversation, without computing anything of it. */
import type { Context } from 'hono';
import { tokenizeRequestSchema, type TokenizeRequest, type TokenizeResponse } from '../protocol.ts';
import { renderChat } from './chat-prompt.ts';
import { ApiError } from './errors.ts';
import { requireModel } from './models.ts';
import { parseRequest } from './parse-request.ts';
import { readJson } from './read-json.ts';
import type { AppEnv, Services } from './services.ts';

/** @throws ApiError as a chat completion of the same fields would. */
export async function answerTokenize(c: Context<AppEnv>, services: Services): Promise<Response> {
  const model = services.lifecycle.modelForRequest();
  const body = parseRequest(tokenizeRequestSchema, await readJson(c));
  requireModel(model, body.model);
  checkEnding(body);
  const { tokens } = renderChat(model, body);
  return c.json<TokenizeResponse>({
    count: tokens.length,
    max_model_len: model.engine.description.contextLength,
    tokens: Array.from(tokens),
  });
}

/** Either name may say how the prompt ends, and neither otherwise than the messages. @throws ApiError 400 */
function checkEnding(body: TokenizeRequest): void {
  const last = body.messages.at(-1);
  const goesOn = last?.role === 'assistant' && last.prefix === true;
  const said = [
    { param: 'add_generation_prompt', asked: body.add_generation_prompt, right: !goesOn },
    { param: 'continue_final_message', asked: body.continue_final_message, right: goesOn },
  ];
  for (const { param, asked, right } of said) {
    if (asked === undefined || asked === null || asked === right) continue;
    const message = `'${param}' contradicts the last message: with 'prefix' it is continued.`;
    throw new ApiError('invalid_value', message, { param });
  }
}
