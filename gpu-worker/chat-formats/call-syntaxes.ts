/** The syntaxes of calls by the names of the formats that have them. */
import { deepseekV31Marks, glmMarks } from '../tokenizer/call-marks.ts';
import type { CallParser } from './call-parser.ts';
import type { CallForm, CallSyntax, CallSyntaxName } from './chat-format.ts';
import { DeepseekV31Parser } from './deepseek-v31-calls.ts';
import { dsmlForm } from './dsml-calls.ts';
import { glmForm } from './glm-calls.ts';
import { TaggedParser } from './tagged-calls.ts';

function namesOf(tools: CallForm['tools']): readonly string[] {
  return tools.map(({ name }) => name);
}

export const callSyntaxes: Readonly<Record<CallSyntaxName, CallSyntax>> = {
  'deepseek-v32': {
    name: 'deepseek-v32',
    // A tokenizer without a token for the mark writes it as text.
    tokens: [],
    needsTypes: false,
    createParser: (idPrefix) => new TaggedParser(idPrefix, dsmlForm),
  },
  'deepseek-v31': {
    name: 'deepseek-v31',
    tokens: Object.values(deepseekV31Marks),
    needsTypes: false,
    createParser: (idPrefix, tools) =>
      new DeepseekV31Parser(idPrefix, { toolNames: namesOf(tools), isFenced: false }),
  },
  'deepseek-v3': {
    name: 'deepseek-v3',
    tokens: Object.values(deepseekV31Marks),
    needsTypes: false,
    createParser: (idPrefix, tools) =>
      new DeepseekV31Parser(idPrefix, { toolNames: namesOf(tools), isFenced: true }),
  },
  glm: {
    name: 'glm',
    tokens: Object.values(glmMarks),
    needsTypes: true,
    createParser(idPrefix, tools) {
      const typed = tools.flatMap(({ name, types }) =>
        types === null ? [] : [[name, types] as const],
      );
      return new TaggedParser(idPrefix, glmForm(new Map(typed)));
    },
  },
};

/** One per choice; ids of calls are unique among requests, as the ids of requests are. */
export function createCallParsers(
  requestId: string,
  { choices, form }: { readonly choices: number; readonly form: CallForm },
): CallParser[] {
  const { createParser } = callSyntaxes[form.syntax];
  return Array.from({ length: choices }, (_, choice) =>
    createParser(`call-${requestId}-${choice}`, form.tools),
  );
}
