/** Small safetensors files and checkpoint directories, well formed or broken on purpose. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { WeightDtype } from '../../../gpu-worker/backend/weights.ts';

export interface FixtureTensor {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export type FileContents = Readonly<Record<string, string | Uint8Array | object>>;

/** A directory with these files, removed after the test. Plain objects are written as JSON. */
export async function directoryWith(files: FileContents): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'sift-weights-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    const raw = typeof content === 'string' || content instanceof Uint8Array;
    await writeFile(join(directory, name), raw ? content : JSON.stringify(content));
  }
  return directory;
}

/** A well-formed file with the tensors in the given order. */
export function safetensors(tensors: readonly FixtureTensor[], metadata?: object): Uint8Array {
  const header: Record<string, unknown> = metadata === undefined ? {} : { __metadata__: metadata };
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  return rawFile(JSON.stringify(header), Buffer.concat(tensors.map((tensor) => tensor.bytes)));
}

/** A file of any header text and data; `headerBytes` overrides the length it claims. */
export function rawFile(
  header: string | Uint8Array,
  content: Uint8Array,
  headerBytes?: bigint,
): Uint8Array {
  const text = typeof header === 'string' ? Buffer.from(header) : header;
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerBytes ?? BigInt(text.length));
  return Buffer.concat([length, text, content]);
}

export function f32(name: string, shape: readonly number[], values: readonly number[]) {
  return { name, dtype: 'F32', shape, bytes: bytesOf(new Float32Array(values)) } as const;
}

/** bfloat16 by truncation: only for values that need no more bits. */
export function bf16(name: string, shape: readonly number[], values: readonly number[]) {
  const upper = new Uint16Array(new Float32Array(values).buffer).filter((_, i) => i % 2 === 1);
  return { name, dtype: 'BF16', shape, bytes: bytesOf(upper) } as const;
}

export function fp8(name: string, shape: readonly number[], codes: readonly number[]) {
  return { name, dtype: 'F8_E4M3', shape, bytes: Uint8Array.from(codes) } as const;
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer);
}
