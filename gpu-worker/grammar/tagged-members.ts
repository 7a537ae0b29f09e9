/**
 * Objects whose members are written in tags and not as JSON: the arguments of calls in the formats
 * of some models. A text stands in its tags as it is; any other value is JSON.
 */
import type { Compilation } from './compilation.ts';
import { literalsDfa } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import type { GrammarBuilder } from './grammar.ts';
import type { JsonText, MarkedText } from './json-text.ts';
import { contentDfa, intersectDfas } from './nfa.ts';
import type { OtherMembers } from './object-rules.ts';
import type { Place } from './schema-document.ts';
import { impliedTypes, isObject } from './schema-keywords.ts';
import { otherStringsDfa, quotedDfa } from './strings.ts';
import type { ObjectSurface, WriteValue } from './write-object.ts';
import { RawText } from './raw-text.ts';

export interface TaggedSyntax {
  /** Stands between two members. */
  readonly separator: MarkedText;
  readonly nameBegin: MarkedText;
  /** Stands between the name and a text. */
  readonly textBegin: MarkedText;
  /** Stands between the name and any other value. */
  readonly jsonBegin: MarkedText;
  readonly valueEnd: MarkedText;
  /** The string of `valueEnd`, which no text holds. */
  readonly endText: string;
}

/** Restricts a value to what is written as it stands; known by its identity. */
export const rawStringSchema = { type: 'string' } as const;
/** Restricts a value to what is written as JSON. */
const jsonSchema = { type: ['null', 'boolean', 'number', 'array', 'object'] } as const;
/** Restricts a value to an object whose members stand in tags; known by its identity. */
export const taggedSchema = { type: 'object' } as const;

export function markerPlace(schema: object): Place {
  return { schema, path: [], base: '', depth: 0 };
}

export interface TaggedWriter {
  /** Writes texts as they stand. */
  readonly raw: RawText;
  surface(value: WriteValue): ObjectSurface;
}

export function createTaggedWriter(text: JsonText, syntax: TaggedSyntax): TaggedWriter {
  const { builder, compilation } = text;
  const raw = new RawText(builder, compilation, syntax.endText);
  const begin = (from: number, name: (at: number) => void): void => {
    const at = builder.node();
    text.marked(from, syntax.nameBegin, at);
    name(at);
  };
  return {
    raw,
    surface: (value) => ({
      open: (from, to) => builder.skip(from, to),
      closeEmpty: (from, to) => builder.skip(from, to),
      separate: (from, to) => text.marked(from, syntax.separator, to),
      close: (from, to) => builder.skip(from, to),
      name: (from, name, to) => begin(from, (at) => text.text(at, name, to)),
      otherName: (from, other, declared, to) =>
        begin(from, (at) => writeOtherName(raw, { at, other, declared, to })),
      value: (from, to, places) =>
        writeValue({ builder, text, syntax }, { from, to, places, value }),
    }),
  };
}

function writeValue(
  { builder, text, syntax }: { builder: GrammarBuilder; text: JsonText; syntax: TaggedSyntax },
  {
    from,
    to,
    places,
    value,
  }: { from: number; to: number; places: readonly Place[]; value: WriteValue },
): void {
  const inTags = (begin: MarkedText, only: object): void => {
    const [start, end] = [builder.node(), builder.node()];
    text.marked(from, begin, start);
    value(start, end, [...places, markerPlace(only)]);
    text.marked(end, syntax.valueEnd, to);
  };
  if (mayBeText(places)) inTags(syntax.textBegin, rawStringSchema);
  inTags(syntax.jsonBegin, jsonSchema);
}

/** False where the keywords of a schema without a type are of other types than texts. */
function mayBeText(places: readonly Place[]): boolean {
  return places.every(({ schema }) => {
    if (!isObject(schema) || schema.type !== undefined) return true;
    const implied = impliedTypes(schema);
    return implied.length === 0 || implied.includes('string');
  });
}

/** Names of no declared member; none holds a character that tags are made of. */
function writeOtherName(
  raw: RawText,
  names: { at: number; other: OtherMembers; declared: readonly string[]; to: number },
): void {
  const { at, other, declared, to } = names;
  const build = (): Dfa | null => {
    const { work } = raw.compilation;
    const named = other.key === null ? otherStringsDfa(declared, work) : other.names();
    return intersectDfas([named, plainNames(raw.compilation)], work);
  };
  raw.strings(at, `names:${other.key ?? JSON.stringify(declared)}`, build, to);
}

/** As JSON strings: of any characters but control characters, quotes, white space and brackets. */
function plainNames({ work }: Compilation): Dfa | null {
  const ranges = [
    [0x21, 0x21],
    [0x23, 0x3b],
    [0x3d, 0x3d],
    [0x3f, 0x7e],
    [0xa1, 0xd7ff],
    [0xf900, 0xffef],
  ] as const;
  const part = { kind: 'set', ranges } as const;
  const inside = contentDfa({ kind: 'repeat', part, min: 1, max: Infinity }, work);
  return inside === null ? literalsDfa([], work) : quotedDfa(inside, work);
}
