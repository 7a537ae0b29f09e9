/** Reads the request of `/v1/quote`: the body of a chat completion, a completion or a response. */
import { z } from '@hono/zod-openapi';
import type { RequestReader } from './dialect.ts';
import { chatRequestExamples, textRequestExamples } from './openai/examples.ts';
import { chatRequestSchema, shownTextRequestSchema } from './openai/request-schemas.ts';
import { parseChatRequest, parseTextRequest } from './openai/requests.ts';
import { requestExamples } from './responses/examples.ts';
import { responsesRequestSchema } from './responses/request-schemas.ts';
import { parseResponsesRequest } from './responses/requests.ts';

export const quoteRequestSchema = z
  .union([chatRequestSchema, shownTextRequestSchema, responsesRequestSchema])
  .meta({ examples: [...chatRequestExamples, ...textRequestExamples, requestExamples[0]] });

export const quoteReader: RequestReader = {
  name: 'quote',
  namesStored: true,
  parse(json, context) {
    if (typeof json !== 'object' || json === null) return parseChatRequest(json);
    if ('prompt' in json) return parseTextRequest(json);
    return 'input' in json ? parseResponsesRequest(json, context) : parseChatRequest(json);
  },
};
