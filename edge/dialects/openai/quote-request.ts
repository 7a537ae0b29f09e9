/** Reads the request of `/v1/quote`: the body of a chat completion or of a completion. */
import { z } from '@hono/zod-openapi';
import type { RequestReader } from '../dialect.ts';
import { parseChatRequest, parseTextRequest } from './requests.ts';
import { chatRequestSchema, shownTextRequestSchema } from './request-schemas.ts';

export const quoteRequestSchema = z.union([chatRequestSchema, shownTextRequestSchema]);

export const quoteReader: RequestReader = {
  name: 'quote',
  parse: (json) =>
    typeof json === 'object' && json !== null && 'prompt' in json
      ? parseTextRequest(json)
      : parseChatRequest(json),
};
