/**
 * All that is worked out of a request's bytes: the checked request, its prefix chain and bounds,
 * and the body for a worker. It takes time by the length of the body and needs nothing but its
 * input, so that a large body can be prepared on another thread. What comes of it is small, but for
 * the body.
 */
import { createHash } from 'node:crypto';
import { stopsOf } from '../engines/finish.ts';
import type { Stops } from '../engines/finish.ts';
import { ApiError } from '../errors.ts';
import { cacheSalt, canonicalBytes, emptyChain, extendChain, prefixRoot } from '../prefix/chain.ts';
import type { Chain } from '../prefix/chain.ts';
import { promptTrail } from '../prefix/prompt-trail.ts';
import type { PromptTrail } from '../prefix/prompt-trail.ts';
import { logprobsPerToken, tokenBytesMax } from './answer-bound.ts';
import { readerNamed } from '../dialects/dialects.ts';
import type { InferenceRequest, ReadContext } from '../dialects/inference-request.ts';
import { promptBound } from './prompt-bound.ts';
import { resolveModel } from './model-names.ts';
import type { ModelNames, ResolvedModel } from './model-names.ts';

/** Everything here can be sent to another thread. */
export interface PrepareInput extends ModelNames {
  readonly bytes: Uint8Array;
  /** The name of what reads the body (RequestReader). */
  readonly reader: string;
  /** The path that an idempotency key stands for beside the bytes; null without such a key. */
  readonly hashedPath: string | null;
  readonly tenant: string;
  readonly cacheSecret: string;
  readonly context: ReadContext;
}

/** Everything here can be sent to another thread, too. */
export interface Prepared extends ResolvedModel {
  readonly request: RequestOutline;
  readonly requestHash: string | null;
  /** The most that the prompts can have, were there no context. */
  readonly promptTokensBound: number;
  /** The bytes of all that the model reads. */
  readonly promptBytes: number;
  readonly cacheSalt: string;
  /** Null if there are several prompts. */
  readonly chain: Chain | null;
  /** Null if there are several prompts. */
  readonly trail: PromptTrail | null;
  /** The JSON object that a worker is sent, but for the fields that are the edge's own. */
  readonly body: string;
}

/** The request without what grows with its length. */
export type RequestOutline = Omit<InferenceRequest, 'workerBody' | 'promptParts' | 'suffix'> & {
  readonly stops: Stops;
  /** The most bytes of a token in a worker's answer. */
  readonly tokenBytesMax: number;
  readonly logprobsPerToken: number;
};

/** @throws ApiError naming the parameter at fault, or 404 without such a model. */
export function prepare(input: PrepareInput): Prepared {
  const { bytes, reader, hashedPath, context } = input;
  const requestHash = hashedPath === null ? null : hashOf(hashedPath, bytes);
  const request = readerNamed(reader).parse(parseJson(bytes), context);
  return { ...prepareParsed(request, input), requestHash };
}

export function prepareParsed(
  request: InferenceRequest,
  input: Pick<PrepareInput, 'tenant' | 'cacheSecret'> & ModelNames,
): Omit<Prepared, 'requestHash'> {
  const { cacheSecret } = input;
  const resolved = resolveModel(request.model, input);
  const { model } = resolved;
  const { workerBody, promptParts, suffix: _suffix, ...small } = request;
  const root = prefixRoot(cacheSecret, {
    tenant: input.tenant,
    scope: request.cacheScope,
    model: model.id,
    revision: model.revision,
    tokenizer: model.tokenizer,
  });
  const prompt = canonicalBytes(promptParts);
  return {
    request: {
      ...small,
      stops: stopsOf(workerBody),
      tokenBytesMax: tokenBytesMax(workerBody),
      logprobsPerToken: logprobsPerToken(workerBody),
    },
    ...resolved,
    promptTokensBound: promptBound(request, prompt.length),
    promptBytes: prompt.length,
    cacheSalt: cacheSalt(root),
    chain: request.prompts === 1 ? extendChain(emptyChain(root), prompt) : null,
    trail: request.prompts === 1 ? promptTrail(promptParts, root) : null,
    body: JSON.stringify({ ...workerBody, model: model.id }),
  };
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    // The parser's own message quotes the body, which may hold anything.
    throw new ApiError('invalid_json', 'The request body is not valid JSON.');
  }
}

function hashOf(path: string, bytes: Uint8Array): string {
  return createHash('sha256').update(path).update('\0').update(bytes).digest('hex');
}
