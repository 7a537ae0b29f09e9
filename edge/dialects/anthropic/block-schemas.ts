/**
 * The blocks that messages of users and of the assistant consist of. What clients send back of
 * earlier answers is accepted, the searches of other providers among it.
 */
import { z } from '@hono/zod-openapi';
import { toolNameCharactersMax } from '../../../gpu-worker/protocol/limits.ts';

/** Accepted everywhere and without effect: prefixes are cached automatically. */
export const cacheControlSchema = z.looseObject({ type: z.literal('ephemeral') }).nullish();

export const textBlockSchema = z.strictObject({
  type: z.literal('text'),
  text: z.string(),
  /** An earlier answer may have had them; the model is shown the text. */
  citations: z.array(z.unknown()).nullish(),
  cache_control: cacheControlSchema,
});

export function blocks<Blocks extends readonly [z.ZodObject, ...z.ZodObject[]]>(options: Blocks) {
  return z.discriminatedUnion('type', options, 'the model reads text and the results of tools');
}

/** Clients ask for citations of what was found and of documents; answers cite nothing. */
const citationsSchema = z.looseObject({}).nullish();

const searchResultBlockSchema = z.strictObject({
  type: z.literal('search_result'),
  source: z.string(),
  title: z.string(),
  content: z.array(textBlockSchema).max(1024),
  citations: citationsSchema,
  cache_control: cacheControlSchema,
});

const documentBlockSchema = z.strictObject({
  type: z.literal('document'),
  source: z.strictObject({
    type: z.literal('text', 'the model reads text only'),
    media_type: z.literal('text/plain'),
    data: z.string(),
  }),
  title: z.string().nullish(),
  context: z.string().nullish(),
  citations: citationsSchema,
  cache_control: cacheControlSchema,
});

const readableBlockSchemas = [
  textBlockSchema,
  searchResultBlockSchema,
  documentBlockSchema,
] as const;

const noToolset = z.null('the model has no toolsets').optional();

/** A tool that the client's search found; all tools are in the prompt, so it is told as text. */
const toolReferenceBlockSchema = z.strictObject({
  type: z.literal('tool_reference'),
  tool_name: z.string().min(1).max(256),
  cache_control: cacheControlSchema,
});

const resultContentSchema = z.union([
  z.string(),
  z.array(blocks([...readableBlockSchemas, toolReferenceBlockSchema])).max(1024),
]);

export const userBlockSchema = blocks([
  ...readableBlockSchemas,
  z.strictObject({
    type: z.literal('tool_result'),
    tool_use_id: z.string().min(1).max(256),
    content: resultContentSchema.nullish(),
    is_error: z.boolean().nullish(),
    toolset_name: noToolset,
    cache_control: cacheControlSchema,
  }),
]);

const calledNameSchema = z.string().min(1).max(toolNameCharactersMax);

export const assistantBlockSchema = blocks([
  textBlockSchema,
  z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
  z.strictObject({ type: z.literal('redacted_thinking'), data: z.string() }),
  z.strictObject({
    type: z.literal('tool_use'),
    id: z.string().min(1).max(256),
    name: calledNameSchema,
    input: z.record(z.string(), z.unknown()),
    caller: z.looseObject({ type: z.literal('direct') }).nullish(),
    toolset_name: noToolset,
    cache_control: cacheControlSchema,
  }),
  /** A search that the provider of an earlier answer ran, and what it found. */
  z.strictObject({
    type: z.literal('server_tool_use'),
    id: z.string().min(1).max(256),
    name: calledNameSchema,
    input: z.record(z.string(), z.unknown()),
    caller: z.looseObject({ type: z.string() }).nullish(),
    cache_control: cacheControlSchema,
  }),
  z.strictObject({
    type: z.literal('web_search_tool_result'),
    tool_use_id: z.string().min(1).max(256),
    content: z.union([
      z.array(z.looseObject({ title: z.string().nullish(), url: z.string().nullish() })).max(1024),
      z.looseObject({ error_code: z.string() }),
    ]),
    caller: z.looseObject({ type: z.string() }).nullish(),
    cache_control: cacheControlSchema,
  }),
]);
