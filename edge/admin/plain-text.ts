/** Labels, names and notes, as all databases and readers can keep them. */
import { z } from 'zod';

/** SQLite's own functions end a text at NUL, and half a character cannot be written as UTF-8. */
export function plainText(lengthMax: number): z.ZodString {
  return z
    .string()
    .max(lengthMax)
    .refine(
      (text) => text.isWellFormed() && !text.includes('\0'),
      'expected text without NUL and halves of characters',
    );
}
