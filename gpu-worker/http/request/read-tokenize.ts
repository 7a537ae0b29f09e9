/** The answer of `POST /tokenize`, made of its parsed body. */
import { tokenizeRequestSchema } from '../../protocol/requests.ts';
import type { TokenizeRequest } from '../../protocol/requests.ts';
import type { TokenizeResponse } from '../../protocol/responses.ts';
import { renderChat } from './chat-prompt.ts';
import { ApiError } from '../api-error.ts';
import { requireModel } from '../models.ts';
import { parseRequest } from './parse-request.ts';
import type { TextModel } from '../text/text-model.ts';

/** @throws ApiError as a chat completion of the same fields would. */
export function readTokenize(model: TextModel, json: unknown): Uint8Array<ArrayBuffer> {
  const body = parseRequest(tokenizeRequestSchema, json);
  requireModel(model, body.model);
  checkEnding(body);
  const { tokens } = renderChat(model, body);
  const answer: TokenizeResponse = {
    count: tokens.length,
    max_model_len: model.description.contextLength,
    tokens: Array.from(tokens),
  };
  return new TextEncoder().encode(JSON.stringify(answer));
}

/**
 * Either name may say how the prompt ends, and neither otherwise than the messages. @throws
 * ApiError 400
 */
function checkEnding(body: TokenizeRequest): void {
  const last = body.messages.at(-1);
  const goesOn = last?.role === 'assistant' && last.prefix === true;
  const options = [
    { param: 'add_generation_prompt', asked: body.add_generation_prompt, right: !goesOn },
    { param: 'continue_final_message', asked: body.continue_final_message, right: goesOn },
  ];
  for (const { param, asked, right } of options) {
    if (asked === undefined || asked === null || asked === right) continue;
    const message = `'${param}' contradicts the last message: with 'prefix' it is continued.`;
    throw new ApiError('invalid_value', message, { param });
  }
}
