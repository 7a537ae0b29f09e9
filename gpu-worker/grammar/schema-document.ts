/**
 * A whole JSON schema: where its references lead. Places are known by JSON pointer, by `$id` and by
 * `$anchor`; nothing outside the document is ever fetched.
 */
import { GrammarLimitError } from './dfa.ts';
import { invalid, isObject, unsupported } from './schema-keywords.ts';
import type { Path, Schema } from './schema-keywords.ts';

/** A schema, where it stands, and the URI that its references are relative to. */
export interface Place {
  readonly schema: unknown;
  readonly path: Path;
  readonly base: string;
  readonly depth: number;
}

/** Schemas that stand inside one another. */
export const schemaDepthMax = 64;

/** @throws GrammarLimitError */
export function refuseDeep(at: Place): void {
  if (at.depth <= schemaDepthMax) return;
  throw new GrammarLimitError(`it is nested more than ${schemaDepthMax} deep`);
}

/** The URI of a document that states none. */
const anonymous = 'schema:/';

const schemaKeywords = [
  'additionalItems',
  'additionalProperties',
  'contains',
  'else',
  'if',
  'items',
  'not',
  'propertyNames',
  'then',
  'unevaluatedItems',
  'unevaluatedProperties',
];
const listKeywords = ['allOf', 'anyOf', 'oneOf', 'prefixItems', 'items'];
const mapKeywords = [
  '$defs',
  'definitions',
  'dependencies',
  'dependentSchemas',
  'patternProperties',
  'properties',
];

export class SchemaDocument {
  readonly root: Place;
  /** Drafts up to 7: what stands beside `$ref` says nothing. */
  readonly #refStandsAlone: boolean;
  readonly #places = new Map<string, Place>();
  readonly #dynamicAnchors = new Map<string, number>();

  /** @throws SchemaError */
  constructor(root: unknown) {
    const version = isObject(root) ? root.$schema : undefined;
    this.#refStandsAlone = typeof version === 'string' && /draft-0[3-7]/.test(version);
    this.root = this.below({ schema: root, path: [], base: anonymous, depth: -1 }, [], root);
    this.#places.set(anonymous, this.root);
    this.#register();
  }

  /** Tells whether other keywords of the schema count. */
  hasSiblings(schema: Schema): boolean {
    return !(this.#refStandsAlone && Object.hasOwn(schema, '$ref'));
  }

  /** A schema below another one. */
  below(at: Place, keys: Path, schema: unknown): Place {
    const path = [...at.path, ...keys];
    return { schema, path, base: this.#baseOf(schema, at.base), depth: at.depth + 1 };
  }

  /** Finds the schema that `$ref` or `$dynamicRef` leads to. @throws SchemaError */
  target(at: Place, keyword: '$ref' | '$dynamicRef'): Place {
    const reference = isObject(at.schema) ? at.schema[keyword] : undefined;
    const path = [...at.path, keyword];
    if (typeof reference !== 'string') throw invalid(path, 'expected a string');
    const found = this.#find(reference, at.base);
    if (found === 'elsewhere') {
      throw unsupported(path, 'only places in the same schema, such as #/$defs/name, can be meant');
    }
    if (found === null) throw invalid(path, `nothing stands at ${reference}`);
    const anchor = isObject(found.schema) ? found.schema.$dynamicAnchor : undefined;
    const isDynamic = keyword === '$dynamicRef' && typeof anchor === 'string';
    if (isDynamic && (this.#dynamicAnchors.get(anchor) ?? 0) > 1) {
      throw unsupported(path, `several places are called ${anchor}`);
    }
    return found;
  }

  #find(reference: string, base: string): Place | 'elsewhere' | null {
    const uri = resolved(reference, base);
    if (uri === null) return 'elsewhere';
    const known = this.#places.get(uri) ?? this.#places.get(withoutEmptyFragment(uri));
    if (known !== undefined) return known;
    const [resource, fragment] = splitFragment(uri);
    const start = this.#places.get(resource);
    if (start === undefined) return 'elsewhere';
    return fragment.startsWith('/') ? this.#follow(start, fragment) : null;
  }

  #follow(start: Place, pointer: string): Place | null {
    return pointer
      .split('/')
      .slice(1)
      .map(unescapePointer)
      .reduce<Place | null>((at, key) => {
        const inside = at?.schema;
        if (at === null || typeof inside !== 'object' || inside === null) return null;
        if (!Object.hasOwn(inside, key)) return null;
        // An object or a list, by what was just asked of it.
        const value = (inside as Record<string, unknown>)[key];
        return { ...this.below(at, [key], value), depth: 0 };
      }, start);
  }

  /** Notes every schema that has a name of its own, looking only where schemas stand. */
  #register(): void {
    const waiting: Place[] = [this.root];
    for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
      const { schema, base } = at;
      if (!isObject(schema)) continue;
      const place = { ...at, depth: 0 };
      if (base !== anonymous && !this.#places.has(base)) this.#places.set(base, place);
      for (const keyword of ['$anchor', '$dynamicAnchor'] as const) {
        const anchor = schema[keyword];
        if (typeof anchor !== 'string') continue;
        this.#places.set(`${base}#${anchor}`, place);
        if (keyword === '$dynamicAnchor') {
          this.#dynamicAnchors.set(anchor, (this.#dynamicAnchors.get(anchor) ?? 0) + 1);
        }
      }
      // Draft 7's spelling of an anchor.
      const { $id } = schema;
      if (typeof $id === 'string' && $id.startsWith('#')) this.#places.set(`${base}${$id}`, place);
      waiting.push(...this.#inside(at, schema));
    }
  }

  #inside(at: Place, schema: Schema): Place[] {
    const found: Place[] = [];
    for (const keyword of schemaKeywords) {
      if (isObject(schema[keyword])) found.push(this.below(at, [keyword], schema[keyword]));
    }
    for (const keyword of listKeywords) {
      const list = schema[keyword];
      if (!Array.isArray(list)) continue;
      list.forEach((each, index) => found.push(this.below(at, [keyword, index], each)));
    }
    for (const keyword of mapKeywords) {
      const map = schema[keyword];
      if (!isObject(map)) continue;
      for (const [key, each] of Object.entries(map)) {
        found.push(this.below(at, [keyword, key], each));
      }
    }
    return found;
  }

  #baseOf(schema: unknown, base: string): string {
    if (!isObject(schema) || typeof schema.$id !== 'string') return base;
    if (schema.$id.startsWith('#') || !this.hasSiblings(schema)) return base;
    const uri = resolved(schema.$id, base);
    return uri === null ? base : withoutEmptyFragment(uri);
  }
}

function resolved(reference: string, base: string): string | null {
  return URL.parse(reference, base)?.href ?? null;
}

function splitFragment(uri: string): readonly [string, string] {
  const at = uri.indexOf('#');
  return at < 0 ? [uri, ''] : [uri.slice(0, at), uri.slice(at + 1)];
}

function withoutEmptyFragment(uri: string): string {
  const [resource, fragment] = splitFragment(uri);
  return fragment === '' ? resource : uri;
}

function unescapePointer(part: string): string {
  const decoded = decoding(part);
  return decoded.replaceAll('~1', '/').replaceAll('~0', '~');
}

function decoding(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
