/** Small schemas that several parts of the protocol are made of. */
import { z } from 'zod';
import { tokenCountMax } from './limits.ts';

/** Ids travel in headers, logs and journals. */
export const requestIdSchema = z.string().regex(/^[A-Za-z0-9._:-]{1,128}$/);

export const tokenId = z.int().min(0);
export const tokenCount = z.int().min(0).max(tokenCountMax);

/** Counts before it looks inside: a body of a million bad elements has one fault, not a million. */
export function boundedArray<Element extends z.ZodType>(
  element: Element,
  { min = 0, max }: { min?: number; max: number },
) {
  return z.array(z.unknown()).min(min).max(max).pipe(z.array(element));
}

/** A walk through a schema, or its writing, goes level by level on the stack. */
const schemaLevelsMax = 512;

/** A JSON schema, not yet looked into. */
export const schemaSchema = z
  .record(z.string(), z.unknown())
  .refine((schema) => !isDeeper(schema, schemaLevelsMax), {
    message: `expected at most ${schemaLevelsMax} levels`,
  });

function isDeeper(value: unknown, levelsMax: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; depth <= levelsMax && level.length > 0; depth++) {
    level = level.flatMap((each) =>
      typeof each === 'object' && each !== null ? Object.values(each) : [],
    );
  }
  return level.length > 0;
}
