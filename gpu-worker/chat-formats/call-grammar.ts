/** The grammar of calls that have to be made, in the syntax of a format. */
import type { GrammarBuilder } from '../grammar/grammar.ts';
import type { JsonWriter } from '../grammar/json-schema.ts';
import type { MarkedText } from '../grammar/json-text.ts';
import type { TaggedSyntax } from '../grammar/tagged-members.ts';
import { controlPattern } from '../tokenizer/tokenizer.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

export interface CallableFunction {
  readonly name: string;
  /** Writes the arguments that it may be called with: in tags, or as one JSON object. */
  writeArguments(from: number, to: number, syntax: TaggedSyntax | null): void;
}

export interface CallsPlan {
  readonly builder: GrammarBuilder;
  readonly json: JsonWriter;
  /** Splits text of the format into its control tokens and what stands between them. */
  marked(text: string): MarkedText;
  readonly functions: readonly CallableFunction[];
  /** True if there may be one call only. */
  readonly isSingle: boolean;
  readonly from: number;
  readonly to: number;
}

/** Strings that are one token each in this tokenizer become that token. */
export function markedBy(tokenizer: Tokenizer, marks: Iterable<string>): CallsPlan['marked'] {
  const known = [...marks].filter((mark) => tokenizer.controlToken(mark) !== null);
  const pattern = new RegExp(`(${controlPattern(known).source})`);
  return (text) =>
    text
      .split(pattern)
      .filter((piece) => piece !== '')
      .map((piece) => tokenizer.controlToken(piece) ?? piece);
}

/** The strings around calls, in a syntax that writes one call after the other. */
export interface CallFrame {
  readonly begin: string;
  callBegin(name: string): string;
  readonly callEnd: string;
  readonly between: string;
  readonly end: string;
  /** The tags of the arguments; null where they are one JSON object. */
  arguments(marked: CallsPlan['marked']): TaggedSyntax | null;
}

export function writeCalls(frame: CallFrame, plan: CallsPlan): void {
  const { builder, json, marked, functions, from, to } = plan;
  const text = (before: number, written: string, after = builder.node()): number => {
    json.marked(before, marked(written), after);
    return after;
  };
  const next = text(from, frame.begin);
  const called = builder.node();
  const syntax = frame.arguments(marked);
  for (const each of functions) {
    const written = builder.node();
    each.writeArguments(text(next, frame.callBegin(each.name)), written, syntax);
    text(written, frame.callEnd, called);
  }
  text(called, frame.end, to);
  if (!plan.isSingle) text(called, frame.between, next);
}
