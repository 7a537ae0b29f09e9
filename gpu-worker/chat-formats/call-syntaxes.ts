/** The syntaxes of calls by the names of the formats that have them. */
import { deepseekV31Marks, dsmlMark, glmMarks } from '../tokenizer/call-marks.ts';
import { writeCalls } from './call-grammar.ts';
import type { CallParser } from './call-parser.ts';
import type { CallForm, CallSyntax, CallSyntaxName } from './chat-format.ts';
import { DeepseekV31Parser, markCharacter, v31Frame } from './deepseek-v31-calls.ts';
import { dsmlBlockBegin, dsmlForm, dsmlFrame, dsmlValueEnd } from './dsml-calls.ts';
import { glmForm, glmFrame } from './glm-calls.ts';
import { TaggedParser } from './tagged-calls.ts';

function v31Syntax({ name, isFenced }: { name: CallSyntaxName; isFenced: boolean }): CallSyntax {
  const frame = v31Frame({ isFenced });
  return {
    name,
    tokens: Object.values(deepseekV31Marks),
    needsTypes: false,
    createParser: (idPrefix, tools) =>
      new DeepseekV31Parser(idPrefix, { toolNames: tools.map((tool) => tool.name), isFenced }),
    marks: Object.values(deepseekV31Marks),
    begin: deepseekV31Marks.callsBegin,
    escaped: markCharacter,
    writeCalls: (plan) => writeCalls(frame, plan),
  };
}

export const callSyntaxes: Readonly<Record<CallSyntaxName, CallSyntax>> = {
  'deepseek-v32': {
    name: 'deepseek-v32',
    // A tokenizer without a token for the mark writes it as text.
    tokens: [],
    needsTypes: false,
    createParser: (idPrefix) => new TaggedParser(idPrefix, dsmlForm),
    marks: [dsmlMark],
    begin: dsmlBlockBegin,
    escaped: dsmlValueEnd,
    writeCalls: (plan) => writeCalls(dsmlFrame, plan),
  },
  'deepseek-v31': v31Syntax({ name: 'deepseek-v31', isFenced: false }),
  'deepseek-v3': v31Syntax({ name: 'deepseek-v3', isFenced: true }),
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
    marks: Object.values(glmMarks),
    begin: glmMarks.callBegin,
    escaped: glmMarks.valueEnd,
    writeCalls: (plan) => writeCalls(glmFrame, plan),
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
