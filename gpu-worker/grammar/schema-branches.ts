/**
 * Reads what a list of schemas says together, as branches: a value fits all the schemas if it fits
 * all the parts of one branch. `$ref` and `allOf` add parts; `anyOf`, `oneOf`, `if`, `not` and what
 * depends on a property being there make branches. Of each part only the keywords count that stand
 * in it itself.
 */
import { missing } from '../at.ts';
import type { Work } from './dfa.ts';
import { areDisjoint } from './disjoint-schemas.ts';
import { negations } from './negate-schema.ts';
import { refuseDeep } from './schema-document.ts';
import type { Place, SchemaDocument } from './schema-document.ts';
import {
  constraintsOf,
  invalid,
  isObject,
  listAt,
  typesOf,
  unsupported,
} from './schema-keywords.ts';
import type { Schema } from './schema-keywords.ts';
import { dependencies } from './schema-values.ts';

/** Bounds the choices of a schema, all together: the engine follows them side by side. */
export const schemaOptionsMax = 256;

/** A schema that is an object. */
export interface Part extends Place {
  readonly schema: Schema;
  /** The part that this one is said in place of, unless it was asked for itself. */
  readonly within?: Open | null;
}

/** One of several lists of schemas. */
type Choice = readonly (readonly Place[])[];

/** A part on its way, and those that it is said in place of: none may come to itself. */
interface Open {
  readonly at: Place;
  readonly within: Open | null;
}

interface Draft {
  readonly parts: Part[];
  readonly seen: Set<unknown>;
  readonly choices: { readonly choice: Choice; readonly within: Open }[];
}

export class SchemaBranches {
  readonly #document: SchemaDocument;
  readonly #work: Work;
  readonly #choices = new WeakMap<Schema, readonly Choice[]>();
  readonly #negatedSchemas = new Map<unknown, Schema>();

  constructor(document: SchemaDocument, work: Work) {
    this.#document = document;
    this.#work = work;
  }

  /** @throws SchemaError, GrammarLimitError */
  of(places: readonly Place[]): readonly (readonly Part[])[] {
    const found: (readonly Part[])[] = [];
    const waiting: { draft: Draft; open: readonly Open[] }[] = [
      {
        draft: { parts: [], seen: new Set(), choices: [] },
        open: places.map((at) => ({ at, within: null })),
      },
    ];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const draft = this.#added(next.draft, next.open);
      if (draft === null) continue;
      const [first, ...choices] = draft.choices;
      // If a branch lists its values, all that its parts say is asked of each at once.
      if (first === undefined || draft.parts.some(({ schema }) => isList(schema))) {
        found.push(draft.parts);
        if (found.length <= schemaOptionsMax) continue;
        throw unsupported(
          (places[0] ?? missing()).path,
          `it gives more than ${schemaOptionsMax} options`,
        );
      }
      for (const option of first.choice.toReversed()) {
        waiting.push({
          draft: { parts: [...draft.parts], seen: new Set(draft.seen), choices },
          open: option.map((at) => ({ at, within: first.within })),
        });
      }
    }
    return found;
  }

  /** The choices that a schema gives, each to be made. @throws SchemaError */
  choicesOf(at: Part): readonly Choice[] {
    const known = this.#choices.get(at.schema);
    if (known !== undefined) return known;
    const choices = [
      ...this.#anyOf(at),
      ...this.#oneOf(at),
      ...this.#not(at),
      ...this.#if(at),
      ...this.#dependencies(at),
    ];
    this.#choices.set(at.schema, choices);
    return choices;
  }

  /** Takes the schemas and what they stand for in place; null where nothing can fit. */
  #added(draft: Draft, open: readonly Open[]): Draft | null {
    const { parts, seen } = draft;
    const choices = [...draft.choices];
    const waiting = [...open].toReversed();
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      this.#work.spend(16 + parts.length);
      const { at, within } = next;
      const { schema, path } = at;
      refuseDeep(at);
      if (schema === true) continue;
      if (schema === false) return null;
      if (!isObject(schema)) throw invalid(path, 'expected a schema: an object or a boolean');
      for (let outer = within; outer !== null; outer = outer.within) {
        this.#work.spend(1);
        if (outer.at.schema === schema) {
          throw invalid(path, 'a value would have to begin with itself');
        }
      }
      if (seen.has(schema)) continue;
      seen.add(schema);
      const inner: Open[] = [];
      for (const keyword of ['$ref', '$dynamicRef'] as const) {
        if (!Object.hasOwn(schema, keyword)) continue;
        inner.push({ at: this.#document.target(at, keyword), within: next });
      }
      if (this.#document.hasSiblings(schema)) {
        const part = { ...at, schema, within };
        parts.push(part);
        if (typesTogether(parts).length === 0) return null;
        if (schema.allOf !== undefined) {
          for (const [index, each] of listAt(schema, 'allOf', path).entries()) {
            inner.push({ at: this.#document.below(at, ['allOf', index], each), within: next });
          }
        }
        for (const choice of this.choicesOf(part)) choices.push({ choice, within: next });
      }
      waiting.push(...inner.toReversed());
    }
    return { parts, seen, choices };
  }

  #anyOf(at: Part): readonly Choice[] {
    if (at.schema.anyOf === undefined) return [];
    const options = listAt(at.schema, 'anyOf', at.path);
    return [options.map((each, index) => [this.#document.below(at, ['anyOf', index], each)])];
  }

  #oneOf(at: Part): readonly Choice[] {
    if (at.schema.oneOf === undefined) return [];
    const options = listAt(at.schema, 'oneOf', at.path).map((each, index) =>
      this.#document.below(at, ['oneOf', index], each),
    );
    if (options.length > schemaOptionsMax) {
      const reason = `there are more than ${schemaOptionsMax} options`;
      throw unsupported([...at.path, 'oneOf'], reason);
    }
    return [
      options.map((option) => [
        option,
        ...options
          .filter((other) => other !== option && !this.#areApart(option, other))
          .map((other): Place => {
            const reason =
              'its options do not exclude one another by their types or by a constant property';
            if (negations(other, this.#document) === null) {
              throw unsupported([...at.path, 'oneOf'], reason);
            }
            return { ...other, schema: this.#negated(other.schema) };
          }),
      ]),
    ];
  }

  #areApart(one: Place, other: Place): boolean {
    return areDisjoint(one, other, this.#document) || this.of([one, other]).length === 0;
  }

  /** One and the same for one schema, so that it is known again. */
  #negated(schema: unknown): Schema {
    const known = this.#negatedSchemas.get(schema) ?? { not: schema };
    this.#negatedSchemas.set(schema, known);
    return known;
  }

  #not(at: Part): readonly Choice[] {
    const { schema } = at;
    if (schema.not === undefined || isPlainNot(schema)) return [];
    const opposite = negations(this.#document.below(at, ['not'], schema.not), this.#document);
    if (opposite === null) {
      throw unsupported([...at.path, 'not'], 'what does not fit it can’t be told');
    }
    return [opposite.map((each) => [each])];
  }

  #if(at: Part): readonly Choice[] {
    const { schema } = at;
    if (schema.if === undefined || (schema.then === undefined && schema.else === undefined)) {
      return [];
    }
    const below = (keyword: 'if' | 'then' | 'else'): Place =>
      this.#document.below(at, [keyword], schema[keyword] ?? true);
    if (negations(below('if'), this.#document) === null) {
      throw unsupported([...at.path, 'if'], 'what does not fit it can’t be told');
    }
    return [
      [
        [below('if'), below('then')],
        [{ ...below('if'), schema: this.#negated(schema.if) }, below('else')],
      ],
    ];
  }

  #dependencies(at: Part): readonly Choice[] {
    return dependencies(at.schema, at).map(({ name, required, keys, inner }) => [
      [{ ...at, schema: { properties: { [name]: false } } }],
      [
        { ...at, schema: { required: [name, ...required] } },
        ...(inner === undefined ? [] : [this.#document.below(at, keys, inner)]),
      ],
    ]);
  }
}

/** The part and those that its references and its `allOf` added. */
export function addedBy(part: Part, parts: readonly Part[]): readonly Part[] {
  return parts.filter((other) => {
    if (other.schema === part.schema) return true;
    for (let outer = other.within ?? null; outer !== null; outer = outer.within) {
      if (outer.at.schema === part.schema) return true;
    }
    return false;
  });
}

/** Tells whether the schema lists its values. */
export function isList(schema: Schema): boolean {
  return Object.hasOwn(schema, 'const') || Object.hasOwn(schema, 'enum');
}

/** Opposites that automata of strings and numbers keep as they are. */
export function isPlainNot(schema: Schema): boolean {
  const { not, type } = schema;
  if (!isObject(not)) return false;
  const keywords = constraintsOf(not);
  if (keywords.length !== 1) return false;
  if (type === 'number') return not.type === 'integer';
  if (type !== 'string') return false;
  return (
    typeof not.pattern === 'string' ||
    (Array.isArray(not.enum) && not.enum.every((each) => typeof each === 'string'))
  );
}

type ValueType = 'null' | 'boolean' | 'integer' | 'number' | 'string' | 'array' | 'object';

/** The types that all parts allow; integers are numbers. */
export function typesTogether(parts: readonly Part[]): readonly ValueType[] {
  let together: readonly ValueType[] = ['null', 'boolean', 'number', 'string', 'array', 'object'];
  for (const { schema, path } of parts) {
    const types = typesOf(schema, path);
    if (types === null) continue;
    together = together.flatMap((each): readonly ValueType[] => {
      if (types.includes(each) || (each === 'integer' && types.includes('number'))) return [each];
      return each === 'number' && types.includes('integer') ? ['integer'] : [];
    });
  }
  return together;
}
