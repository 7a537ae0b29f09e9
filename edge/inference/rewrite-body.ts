/**
 * The body for a worker, made of the one for a sift worker: for foreign engines, and for counting.
 */
import { z } from 'zod';
import { toForeignRequest } from '../engines/foreign-engines.ts';

export type Rewriting = 'answer-elsewhere' | 'count' | 'count-elsewhere';

/** @param body the JSON object of a chat or text completion, as it was prepared. */
export function rewriteBody(body: string, to: Rewriting): string {
  // The body is our own writing of a request that was checked.
  const asked = JSON.parse(body) as Readonly<Record<string, unknown>>;
  if (to === 'answer-elsewhere') return JSON.stringify(toForeignRequest(asked));
  const { model, messages, tools, tool_choice, thinking, reasoning_effort } = asked;
  const conversation = { model, messages, tools, tool_choice, thinking, reasoning_effort };
  if (to === 'count') return JSON.stringify(conversation);
  const { reasoning_effort: _, ...shown } = toForeignRequest(conversation);
  const goesOn = Array.isArray(messages) && begunAnswer.safeParse(messages.at(-1)).success;
  return JSON.stringify({
    ...shown,
    add_generation_prompt: !goesOn,
    continue_final_message: goesOn,
  });
}

/** A last message that the answer goes on from; sift workers know it by itself. */
const begunAnswer = z.looseObject({ role: z.literal('assistant'), prefix: z.literal(true) });
