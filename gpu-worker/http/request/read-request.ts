/** Reads a request out of its bytes, on whichever thread it is called. */
import { ApiError } from '../api-error.ts';
import { readChat } from './read-chat.ts';
import { readCompletion } from './read-completion.ts';
import { readTokenize } from './read-tokenize.ts';
import type { ReadByRoute, TextModel, TextRequest } from '../text/text-model.ts';

/** @throws ApiError */
export function readRequest(
  model: TextModel,
  { route, id, body }: TextRequest,
): ReadByRoute[keyof ReadByRoute] {
  const json = parseJson(body);
  switch (route) {
    case 'chat':
      return readChat(model, json, id);
    case 'completion':
      return readCompletion(model, json, id);
    case 'tokenize':
      return readTokenize(model, json);
  }
}

/** @throws ApiError 400 */
function parseJson(body: SharedArrayBuffer): unknown {
  const text = new TextDecoder().decode(body);
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ApiError('invalid_json', `The request body is not JSON: ${reason}`);
  }
}
