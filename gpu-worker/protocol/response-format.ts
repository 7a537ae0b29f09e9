/**
 * `response_format` of a request: what the answer is held to, in the spellings that clients use.
 */
import { z } from 'zod';
import { schemaSchema } from './fields.ts';

/**
 * JSON of any object, or of the schema; the answer is held to it token by token. OpenAI's spelling
 * has the schema in `json_schema`; Together's, Fireworks' and llama.cpp's have it beside the type.
 */
export const responseFormatSchema = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('text') }),
    z.strictObject({ type: z.literal('json_object'), schema: schemaSchema.nullish() }),
    z.strictObject({
      type: z.literal('json_schema'),
      json_schema: z
        .strictObject({
          name: z
            .string()
            .regex(/^[A-Za-z0-9_-]{1,64}$/)
            .nullish(),
          description: z.string().nullish(),
          schema: schemaSchema,
          /** Answers are held to the schema in either case, but for what can't be counted. */
          strict: z.boolean().nullish(),
        })
        .nullish(),
      schema: schemaSchema.nullish(),
      name: z.string().max(64).nullish(),
      description: z.string().nullish(),
      strict: z.boolean().nullish(),
    }),
  ])
  .superRefine((format, context) => {
    if (format.type !== 'json_schema') return;
    const { json_schema: nested, schema } = format;
    if (nested && schema) {
      const message = "'json_schema' has the schema already";
      context.addIssue({ code: 'custom', path: ['schema'], message, input: schema });
    } else if (!nested && !schema) {
      context.addIssue({
        code: 'custom',
        path: ['json_schema'],
        message: 'expected an object that holds the schema',
        input: undefined,
      });
    }
  });

/**
 * The schema of an answer and where in the format it stands; null where any answer or object will
 * do.
 */
export function schemaOfFormat(format: ResponseFormat): {
  readonly schema: Readonly<Record<string, unknown>>;
  readonly path: readonly string[];
  readonly isStrict: boolean;
} | null {
  if (format.type === 'text') return null;
  if (format.type === 'json_schema' && format.json_schema) {
    const { schema, strict } = format.json_schema;
    return { schema, path: ['json_schema', 'schema'], isStrict: strict === true };
  }
  if (!format.schema) return null;
  const isStrict = format.type === 'json_schema' && format.strict === true;
  return { schema: format.schema, path: ['schema'], isStrict };
}

export type ResponseFormat = z.infer<typeof responseFormatSchema>;
