/**
 * Reads a checkpoint directory in the published layout into float64, fp8 weights times their block
 * scales. It takes every `.safetensors` file that it finds and trusts what they say.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OracleConfig } from './config.ts';
import { fromE4m3 } from './number-formats.ts';
import { at } from './vector.ts';
import type { Matrix, Vector } from './vector.ts';

export interface Oracle {
  readonly config: OracleConfig;
  matrix(name: string): Matrix;
  vector(name: string): Vector;
}

interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: DataView;
}

/** Side of the square blocks of a weight that share a scale. */
const scaleBlock = 128;

export function loadOracle(directory: string): Oracle {
  const stored = new Map<string, StoredTensor>();
  const files = readdirSync(directory).filter((file) => file.endsWith('.safetensors'));
  for (const file of files) readTensors(join(directory, file), stored);
  const find = (name: string): StoredTensor => {
    const tensor = stored.get(name);
    if (tensor === undefined) throw new Error(`the checkpoint has no ${name}`);
    return tensor;
  };
  const readMatrix = (name: string): Matrix => {
    const tensor = find(name);
    const outputs = at(tensor.shape, 0);
    const inputs = at(tensor.shape, 1);
    const values = decode(tensor);
    const fp8 = tensor.dtype === 'F8_E4M3';
    if (fp8) scaleBlocks(values, inputs, decode(find(`${name}_scale_inv`)));
    return { outputs, inputs, values, fp8 };
  };
  return {
    // The oracle's contract is to believe the file.
    config: JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as OracleConfig,
    vector: remembered((name) => decode(find(name))),
    matrix: remembered(readMatrix),
  };
}

/** Reads each name once. */
function remembered<T>(read: (name: string) => T): (name: string) => T {
  const known = new Map<string, T>();
  return (name) => {
    const value = known.get(name) ?? read(name);
    known.set(name, value);
    return value;
  };
}

/** safetensors: 8 bytes of header length, a JSON header, then the bytes that its offsets name. */
function readTensors(path: string, into: Map<string, StoredTensor>): void {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header: unknown = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  // The format fixes these fields for every entry but __metadata__, which is skipped.
  const entries = Object.entries(
    header as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>,
  );
  for (const [name, { dtype, shape, data_offsets: offsets }] of entries) {
    if (name === '__metadata__') continue;
    const start = file.byteOffset + 8 + headerBytes + offsets[0];
    const bytes = new DataView(file.buffer, start, offsets[1] - offsets[0]);
    into.set(name, { dtype, shape, bytes });
  }
}

function decode({ dtype, shape, bytes }: StoredTensor): Vector {
  const out = new Float64Array(shape.reduce((count, size) => count * size, 1));
  const word = new DataView(new ArrayBuffer(4));
  for (let i = 0; i < out.length; i++) {
    if (dtype === 'F32') {
      out[i] = bytes.getFloat32(4 * i, true);
    } else if (dtype === 'BF16') {
      word.setUint16(0, bytes.getUint16(2 * i, true));
      out[i] = word.getFloat32(0);
    } else if (dtype === 'F8_E4M3') {
      out[i] = fromE4m3(bytes.getUint8(i));
    } else {
      throw new Error(`no dtype of a DeepSeek checkpoint: ${dtype}`);
    }
  }
  return out;
}

/** Multiplies in place; the last block of rows and of columns may be partial, hence the ceil. */
function scaleBlocks(values: Vector, inputs: number, scales: Vector): void {
  const blocksPerRow = Math.ceil(inputs / scaleBlock);
  for (let i = 0; i < values.length; i++) {
    const rowBlock = Math.floor(Math.floor(i / inputs) / scaleBlock);
    const columnBlock = Math.floor((i % inputs) / scaleBlock);
    values[i] = at(values, i) * at(scales, rowBlock * blocksPerRow + columnBlock);
  }
}
