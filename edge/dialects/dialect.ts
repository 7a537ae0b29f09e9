/**
 * A protocol of clients, as one value: its routes, what they take, and how answers and errors are
 * written. `dialects.ts` lists them; nothing else in the edge knows which ones there are.
 */
import type { z } from '@hono/zod-openapi';
import type { ApiError } from '../errors.ts';
import type { ModelRecord } from '../directory/directory-contract.ts';
import type { AnswerFormat } from './answer-format.ts';
import type { InferenceRequest, ReadContext } from './inference-request.ts';

export interface Dialect {
  /** Every path that begins with one is answered in this dialect, unknown ones too. */
  readonly pathPrefixes: readonly [string, ...string[]];
  /** Names of the headers that tell the client its request's id. */
  readonly requestIdHeaders: readonly string[];
  readonly errors: ErrorShape;
  readonly inferences: readonly InferenceRoute[];
  readonly tokenCounts: readonly TokenCountRoute[];
  /** null where the models are listed by another dialect. */
  readonly models: ModelRoutes | null;
}

export interface ErrorShape {
  /** The route's name in the reference. */
  readonly name: string;
  readonly schema: z.ZodType;
  body(error: ApiError, requestId: string): object;
}

/** The paths of a route and its text in the reference. */
export interface RouteText {
  readonly path: string;
  /** Other paths of the same route. */
  readonly aliases: readonly string[];
  readonly summary: string;
  readonly description: string;
}

/** Reads a body. Large bodies are read on another thread, which finds the reader by its name. */
export interface RequestReader<Answer = unknown> {
  readonly name: string;
  /** true if its requests may name what the tenant has stored. */
  readonly namesStored?: true;
  /** @throws ApiError naming the parameter at fault. */
  parse(json: unknown, context: ReadContext): InferenceRequest<Answer>;
}

/**
 * A route that runs the model. `format` is a method, so that routes of any `Answer` fit one list:
 * it is only given what the same route's `parse` has returned.
 */
export interface InferenceRoute<Answer = unknown> extends RouteText, RequestReader<Answer> {
  /** The reference shows it; `parse` may check more. */
  readonly requestSchema: z.ZodType;
  /** The reference shows an answer to the first one. */
  readonly requestExamples: readonly [object, ...object[]];
  readonly answerSchema: z.ZodType;
  format(
    answer: Answer,
    request: { readonly requestId: string; readonly model: string },
  ): AnswerFormat;
}

/** A route that counts the tokens of a prompt and runs nothing. */
export interface TokenCountRoute extends RouteText, RequestReader {
  readonly requestSchema: z.ZodType;
  readonly requestExamples: readonly [object, ...object[]];
  readonly answerSchema: z.ZodType;
  toAnswer(tokens: number): object;
}

/** The list of models at a path, and each of them below it. */
export interface ModelRoutes {
  readonly list: RouteText & {
    readonly querySchema: z.ZodObject | null;
    readonly answerSchema: z.ZodType;
    /** @throws ApiError naming the parameter of the query at fault. */
    toAnswer(
      models: readonly ModelRecord[],
      query: Readonly<Record<string, readonly string[]>>,
    ): object;
  };
  readonly one: Omit<RouteText, 'path' | 'aliases'> & {
    readonly answerSchema: z.ZodType;
    toAnswer(model: ModelRecord): object;
  };
}
