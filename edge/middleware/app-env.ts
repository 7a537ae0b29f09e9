/** The values that the runtime and the middleware leave for the routes, under Hono's names. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Context, Hono } from 'hono';
import type { RequestRecord } from '../observe/request-record.ts';

export interface AppEnv {
  /** On Node, the request and the answer as Node has them. */
  Bindings: { readonly incoming?: IncomingMessage; readonly outgoing?: ServerResponse };
  Variables: {
    readonly requestId: string;
    readonly record: RequestRecord;
    /** The answer states the request's id by itself: adding a header to an answer copies it. */
    readonly answerHasId?: boolean;
    /** The request was answered somewhere else, where it is observed. */
    readonly isForwarded?: boolean;
  };
}

export type App = Hono<AppEnv>;
export type AppContext = Context<AppEnv>;
