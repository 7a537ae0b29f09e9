/** Schemas of the numbers in answers. */
import { z } from '@hono/zod-openapi';

export const count = z.int().min(0);
export const cachedCount = count
  .nullable()
  .describe('null where the engine does not say: nothing is billed as cached then.');
export const nanoUsd = z.int().describe('Nano-USD: 1,000,000,000 are one US dollar.');
export const stopCode = z
  .enum(['insufficient_balance', 'budget_exhausted'])
  .optional()
  .describe('Money ran out, and ended the answer before its end.');
