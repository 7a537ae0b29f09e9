/** The reason why a cache had no more of a prompt, as the usage of every dialect states it. */
import { z } from '@hono/zod-openapi';
import { count } from './quantities.ts';

const place = {
  part: z
    .enum(['message', 'tools', 'response_format', 'prompt'])
    .describe('the part of the request that it stands in'),
  message: count
    .nullable()
    .describe('messages are counted from 0, as the model reads them: a system prompt is the first'),
  character: count.describe('all before it was the same'),
  character_end: count.describe('the difference begins before it'),
};

export const cacheMissReasonSchema = z
  .discriminatedUnion('type', [
    z.object({ type: z.literal('first_difference'), ...place }),
    z.object({ type: z.literal('new_messages'), ...place }),
    z.object({
      type: z.enum(['new_conversation', 'evicted', 'other_worker', 'too_short', 'unknown']),
    }),
  ])
  .nullable()
  .describe(
    'Why no cache had the rest of the prompt; null where less than a block of 64 tokens is left, ' +
      'or the engine does not state cached tokens.',
  )
  .meta({
    examples: [
      {
        type: 'first_difference',
        part: 'message',
        message: 0,
        character: 512,
        character_end: 576,
      },
    ],
  });

export type CacheMissReason = NonNullable<z.infer<typeof cacheMissReasonSchema>>;

/** Reads the JSON that an entry of the ledger has. */
export function readCacheMissReason(json: string): CacheMissReason | null {
  return cacheMissReasonSchema.parse(JSON.parse(json));
}
