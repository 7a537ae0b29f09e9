/** The part of a completion, or of a streamed part of one, that tests read. */
import { z } from 'zod';

export const completionSchema = z.object({
  choices: z.array(
    z.object({ index: z.int(), text: z.string(), finish_reason: z.string().nullable() }),
  ),
});
