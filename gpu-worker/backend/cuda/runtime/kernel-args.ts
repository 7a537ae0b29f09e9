/**
 * The arguments of kernels by name. A kernel takes one struct, which its source declares; the
 * struct is parsed once, laid out by C's rules, and filled from an object with a value for every
 * field.
 */
import { strict as assert } from 'node:assert';
import { at } from '../../../at.ts';

/** A value of a field: nothing is a null pointer; words are taken as they are (tensor maps). */
export type KernelArg = number | boolean | null | Uint32Array | KernelArgs;

export interface KernelArgs {
  readonly [field: string]: KernelArg;
}

/** A struct by C's rules: fields in their order, with padding before and behind. */
export interface StructLayout {
  readonly name: string;
  readonly fields: readonly FieldLayout[];
  readonly bytes: number;
  readonly alignment: number;
}

interface FieldLayout {
  readonly name: string;
  /** Bytes from the start of the struct. */
  readonly offset: number;
  readonly type: FieldType;
}

type FieldType =
  | { readonly kind: 'integer'; readonly bytes: 4 | 8 }
  | { readonly kind: 'float'; readonly bytes: number }
  | { readonly kind: 'words'; readonly bytes: number }
  | { readonly kind: 'struct'; readonly bytes: number; readonly struct: StructLayout };

const pointer = { kind: 'integer', bytes: 8 } as const;
/** The types of prelude.cuh that a field may have by value; `real` is a float in 8 bytes. */
const scalars: Readonly<Record<string, { readonly type: FieldType; readonly alignment: number }>> =
  {
    i64: { type: pointer, alignment: 8 },
    u64: { type: pointer, alignment: 8 },
    int: { type: { kind: 'integer', bytes: 4 }, alignment: 4 },
    u32: { type: { kind: 'integer', bytes: 4 }, alignment: 4 },
    float: { type: { kind: 'float', bytes: 4 }, alignment: 4 },
    real: { type: { kind: 'float', bytes: 8 }, alignment: 8 },
  };

/**
 * The struct that each kernel of a program takes, by the kernel's name.
 * @param source of all files of the program, its prelude included
 */
export function parseKernelArgs(source: string): ReadonlyMap<string, StructLayout> {
  const text = withoutComments(source);
  const structs = new StructParser(text);
  const kernels = new Map<string, StructLayout>();
  const signature = /\b(\w+)\(const __grid_constant__ (\w+) \w+\)/g;
  for (const found of text.matchAll(signature))
    kernels.set(at(found, 1), structs.get(at(found, 2)));
  return kernels;
}

function withoutComments(source: string): string {
  return source.replaceAll(/\/\/[^\n]*|\/\*[\s\S]*?\*\//g, '');
}

class StructParser {
  readonly #declared = new Map<string, RegExpExecArray>();
  readonly #parsed = new Map<string, StructLayout>();

  constructor(text: string) {
    const declaration =
      /\bstruct\s+(?:__align__\((\d+)\)\s*)?(\w+)(?:\s*:\s*(\w+))?\s*\{([^{}]*)\}\s*;/g;
    for (const found of text.matchAll(declaration)) this.#declared.set(at(found, 2), found);
  }

  get(name: string): StructLayout {
    const known = this.#parsed.get(name);
    if (known !== undefined) return known;
    const declared = this.#declared.get(name);
    assert(declared !== undefined, `the kernels' sources declare no struct ${name}`);
    const [, aligned, , base] = declared;
    const body = at(declared, 4);
    const layout = this.#layOut(name, { aligned: Number(aligned ?? 1), base, body });
    this.#parsed.set(name, layout);
    return layout;
  }

  #layOut(
    name: string,
    declared: { aligned: number; base: string | undefined; body: string },
  ): StructLayout {
    const base = declared.base === undefined ? null : this.get(declared.base);
    const fields = [...(base?.fields ?? [])];
    let offset = base?.bytes ?? 0;
    let alignment = Math.max(declared.aligned, base?.alignment ?? 1);
    for (const { name: field, typeName, isPointer, count } of fieldsOf(name, declared.body)) {
      const { type, alignment: own } = this.#type(`${name}.${field}`, {
        typeName,
        isPointer,
        count,
      });
      offset = roundUp(offset, own);
      alignment = Math.max(alignment, own);
      fields.push({ name: field, offset, type });
      offset += type.bytes;
    }
    return { name, fields, bytes: roundUp(offset, alignment), alignment };
  }

  #type(
    field: string,
    { typeName, isPointer, count }: { typeName: string; isPointer: boolean; count: number | null },
  ): { type: FieldType; alignment: number } {
    if (isPointer) return { type: pointer, alignment: 8 };
    const scalar = scalars[typeName];
    if (scalar !== undefined && count !== null) {
      const bytes = scalar.type.bytes * count;
      return { type: { kind: 'words', bytes }, alignment: scalar.alignment };
    }
    if (scalar !== undefined) return scalar;
    assert(this.#declared.has(typeName), `${field} has the unknown type ${typeName}`);
    const struct = this.get(typeName);
    return { type: { kind: 'struct', bytes: struct.bytes, struct }, alignment: struct.alignment };
  }
}

interface DeclaredField {
  readonly name: string;
  readonly typeName: string;
  readonly isPointer: boolean;
  /** Elements of an array; null: no array. */
  readonly count: number | null;
}

/** `const float* cos;` is one field, `i64 x_stride, heads;` are two. */
function fieldsOf(struct: string, body: string): DeclaredField[] {
  const lines = body.split(';').map((line) => line.trim());
  return lines
    .filter((line) => line !== '')
    .flatMap((line) => {
      const declared = /^(?:const\s+)?(\w+)(\*?)\s+([\w\s,[\]]+)$/.exec(line);
      assert(declared !== null, `struct ${struct} has a field that cannot be read: ${line}`);
      const typeName = at(declared, 1);
      const star = at(declared, 2);
      return at(declared, 3)
        .split(',')
        .map((part) => {
          const named = /^\s*(\w+)(?:\[(\d+)\])?\s*$/.exec(part);
          assert(named !== null, `struct ${struct} has a field that cannot be read: ${line}`);
          const count = named[2] === undefined ? null : Number(named[2]);
          return { name: at(named, 1), typeName, isPointer: star !== '', count };
        });
    });
}

/** Writes `args` to `words` from `start` on; everything there is zero before. */
export function packArgs(
  kernel: string,
  layout: StructLayout,
  args: KernelArgs,
  to: { readonly words: Uint32Array; readonly start: number },
): void {
  for (const field of layout.fields) {
    const value = args[field.name];
    if (value === undefined) throw new Error(`kernel ${kernel}: argument ${field.name} is missing`);
    packField(kernel, field, value, { words: to.words, start: to.start + field.offset / 4 });
  }
  if (Object.keys(args).length === layout.fields.length) return;
  const known = new Set(layout.fields.map(({ name }) => name));
  const surplus = Object.keys(args).filter((name) => !known.has(name));
  throw new Error(`kernel ${kernel} has no argument ${surplus.join(', ')}`);
}

function packField(
  kernel: string,
  { name, type }: FieldLayout,
  value: KernelArg,
  { words, start }: { words: Uint32Array; start: number },
): void {
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) {
    const number = Number(value);
    if (type.kind === 'float') words[start] = floatBits(number);
    else if (type.kind === 'integer') {
      words[start] = number;
      if (type.bytes === 8) words[start + 1] = Math.floor(number / 2 ** 32);
    } else throw new Error(`kernel ${kernel}: argument ${name} is no number`);
    return;
  }
  if (value instanceof Uint32Array) {
    const fits = value.byteLength === type.bytes && type.kind !== 'integer';
    assert(fits, `kernel ${kernel}: argument ${name} takes no ${value.length} words`);
    words.set(value, start);
    return;
  }
  assert(type.kind === 'struct', `kernel ${kernel}: argument ${name} is no struct`);
  packArgs(kernel, type.struct, value, { words, start });
}

const floats = new Float32Array(1);
const bits = new Uint32Array(floats.buffer);

function floatBits(value: number): number {
  floats[0] = value;
  return at(bits, 0);
}

function roundUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
