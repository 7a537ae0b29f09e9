/**
 * The requests that OpenAI's and DeepSeek's routes accept: the worker's schemas, and what clients
 * send besides. Values that ask for what happens anyway (`store: false`) are accepted; others of
 * such a parameter are refused with the reason.
 */
import { z } from '@hono/zod-openapi';
import {
  chatCompletionRequestSchema,
  completionRequestSchema,
} from '../../../gpu-worker/protocol/requests.ts';

/** DeepSeek's `user_id` keeps users of one account apart in caches and in scheduling. */
const userIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,512}$/, 'expected 1 to 512 of A-Z, a-z, 0-9, _ and -');

const edgeFields = {
  user_id: userIdSchema.nullish(),
  store: z.literal(false, 'completions are not stored').nullish(),
  /** There is one tier; the answer says which one served it, as OpenAI's does. */
  service_tier: z.enum(['auto', 'default', 'flex', 'priority', 'scale']).nullish(),
};

/** Metadata describes what is stored, and nothing is; it is checked as OpenAI does. */
const metadataSchema = z
  .record(z.string().max(64), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, 'expected at most 16 pairs');

const streamOptions = chatCompletionRequestSchema.shape.stream_options.unwrap().unwrap();

/** Fields between the edge and its workers alone. */
const notPublic = { context_length: true, fair_scope: true } as const;

const openAiChatSchema = chatCompletionRequestSchema.omit(notPublic).extend({
  ...edgeFields,
  stream_options: streamOptions
    .extend({ include_obfuscation: z.literal(false, 'events are not padded').nullish() })
    .nullish(),
  metadata: metadataSchema.nullish(),
  modalities: z.array(z.literal('text', 'the model writes text only')).length(1).nullish(),
  /** Prefixes are found by themselves, in all of the account or within a user_id. */
  prompt_cache_key: z.string().max(1_024).nullish(),
  prompt_cache_retention: z
    .literal(['in_memory', 'in-memory'], 'cached prefixes stay until their room is needed')
    .nullish(),
  /** OpenAI's newer name of `user`. */
  safety_identifier: z.string().max(512).nullish(),
  verbosity: z.literal('medium', 'the model has no levels of verbosity').nullish(),
});

/** OpenAI's bound; workers take the longer names of Anthropic's tools too. */
const openAiToolNameCharactersMax = 64;

export const chatRequestSchema = openAiChatSchema.superRefine((request, context) => {
  for (const { name, path } of toolNames(request)) {
    if (name.length <= openAiToolNameCharactersMax) continue;
    const message = `expected at most ${openAiToolNameCharactersMax} characters`;
    context.addIssue({ code: 'custom', path, message, input: name });
  }
});

function toolNames({ tools, tool_choice: choice, messages }: z.infer<typeof openAiChatSchema>) {
  const chosen = choice && typeof choice === 'object' ? [choice] : [];
  return [
    ...(tools ?? []).map((tool, at) => ({ name: tool.function.name, at: ['tools', at] })),
    ...chosen.map((tool) => ({ name: tool.function.name, at: ['tool_choice'] })),
    ...messages.flatMap((message, index) =>
      (message.role === 'assistant' ? (message.tool_calls ?? []) : []).map((call, at) => ({
        name: call.function.name,
        at: ['messages', index, 'tool_calls', at],
      })),
    ),
  ].map(({ name, at }) => ({ name, path: [...at, 'function', 'name'] }));
}
export type ChatRequest = z.infer<typeof chatRequestSchema>;

export const textRequestSchema = completionRequestSchema.omit(notPublic).extend({
  ...edgeFields,
  best_of: z.literal(1, 'use n and choose among the answers').nullish(),
});
export type TextRequest = z.infer<typeof textRequestSchema>;

/** The worker checks the prompt by hand, which no generator can read; this says the same. */
export const shownTextRequestSchema = textRequestSchema.extend({
  prompt: z
    .union([
      z.string(),
      z.array(z.string()).min(1),
      z.array(z.int().min(0)).min(1),
      z.array(z.array(z.int().min(0)).min(1)).min(1),
    ])
    .describe('Text or token ids, one prompt or several.'),
});
