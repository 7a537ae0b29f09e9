/** The prompts of a completion request: texts or token ids, one or several, as tokens. */
import type { CompletionRequest } from '../../protocol/requests.ts';
import { ApiError } from '../api-error.ts';
import { promptTokensMax, refuseTooLong, requireToken } from './engine-request.ts';
import type { TextModel } from '../text/text-model.ts';

export interface CompletionPrompt {
  readonly tokens: Int32Array;
  /** The text that `echo` puts in front of the answer; empty without it. */
  readonly text: string;
  /** Leading tokens that the text does not show: a begin token that we put there. */
  readonly hiddenTokens: number;
}

/** @throws ApiError 400 naming the prompt. */
export function readPrompts(model: TextModel, body: CompletionRequest): CompletionPrompt[] {
  const { prompt } = body;
  if (typeof prompt === 'string') return [fromText(model, body, prompt, 'prompt')];
  if (isTokenList(prompt)) return [fromTokens(model, body, prompt, 'prompt')];
  return prompt.map((each: string | number[], index) =>
    typeof each === 'string'
      ? fromText(model, body, each, `prompt[${index}]`)
      : fromTokens(model, body, each, `prompt[${index}]`),
  );
}

function isTokenList(prompt: string[] | number[] | number[][]): prompt is number[] {
  return typeof prompt[0] === 'number';
}

function fromText(
  model: TextModel,
  { suffix }: CompletionRequest,
  text: string,
  param: string,
): CompletionPrompt {
  if (text === '') throw new ApiError('invalid_value', `'${param}' is empty.`, { param });
  const { tokenizer } = model;
  const begin = tokenizer.encode('', { addSpecialTokens: true });
  const body =
    typeof suffix === 'string'
      ? fillInTheMiddle(model, { before: text, after: suffix })
      : Array.from(encodeBounded(model, text));
  // A client that wrote the begin token itself gets no second one.
  const added = body[0] === begin[0] ? [] : begin;
  return { tokens: Int32Array.from([...added, ...body]), text, hiddenTokens: added.length };
}

function fromTokens(
  model: TextModel,
  { suffix, echo }: CompletionRequest,
  tokens: readonly number[],
  param: string,
): CompletionPrompt {
  if (typeof suffix === 'string') {
    throw new ApiError('invalid_value', "'suffix' needs a prompt of text.", { param: 'suffix' });
  }
  tokens.forEach((token, index) => requireToken(model, token, `${param}[${index}]`));
  const text = echo ? decode(model, tokens) : '';
  return { tokens: Int32Array.from(tokens), text, hiddenTokens: 0 };
}

/** Half characters at either end become U+FFFD. */
function decode({ tokenizer }: TextModel, tokens: readonly number[]): string {
  const parts = tokens.map((token) => tokenizer.tokenBytes(token));
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
}

/** @throws ApiError 400 context_length_exceeded */
function encodeBounded(model: TextModel, text: string): Int32Array {
  const options = { tokensMax: promptTokensMax(model) };
  return refuseTooLong(model, 'prompt', () => model.tokenizer.encode(text, options));
}

/** DeepSeek's format: the model writes what belongs in the hole. */
function fillInTheMiddle(
  model: TextModel,
  { before, after }: { before: string; after: string },
): number[] {
  const [begin, hole, end] = ['<｜fim▁begin｜>', '<｜fim▁hole｜>', '<｜fim▁end｜>'].map((text) =>
    model.tokenizer.controlToken(text),
  );
  if (typeof begin !== 'number' || typeof hole !== 'number' || typeof end !== 'number') {
    throw new ApiError(
      'unsupported_parameter',
      "'suffix' is not supported: the model's tokenizer has no fill-in-the-middle tokens.",
      { param: 'suffix' },
    );
  }
  return [begin, ...encodeBounded(model, before), hole, ...encodeBounded(model, after), end];
}
