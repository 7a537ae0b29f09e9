/**
 * The header of a safetensors file: 8 bytes little-endian length, that many bytes of JSON, then the
 * tensors' bytes. Everything the header claims is checked against the file before a tensor is read:
 * the tensors must cover the data exactly, without gaps, overlaps or bytes left over.
 */
import { parseJsonObject } from './json-files.ts';
import { CheckpointError, fileBytes } from './source.ts';
import type { WeightSource } from './source.ts';

/** The format's own limit. */
export const headerBytesMax = 100_000_000;

/** Bytes per element of the format's dtypes. */
const dtypeBytes: ReadonlyMap<string, number> = new Map([
  ['BOOL', 1],
  ['U8', 1],
  ['I8', 1],
  ['F8_E4M3', 1],
  ['F8_E5M2', 1],
  ['F8_E8M0', 1],
  ['U16', 2],
  ['I16', 2],
  ['F16', 2],
  ['BF16', 2],
  ['U32', 4],
  ['I32', 4],
  ['F32', 4],
  ['U64', 8],
  ['I64', 8],
  ['F64', 8],
]);

export interface StoredTensor {
  readonly name: string;
  readonly file: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** First byte in the file, and the byte after the last. */
  readonly start: number;
  readonly end: number;
}

/**
 * The tensors of one file, in the order of their bytes. Rejects with a CheckpointError that names
 * the file, and the tensor if it is one tensor's fault.
 */
export async function readHeader(source: WeightSource, file: string): Promise<StoredTensor[]> {
  const where = `${source.location}: ${file}`;
  const size = fileBytes(source, file);
  if (size === null) throw new CheckpointError(`${where} is missing`);
  if (size < 8) {
    throw new CheckpointError(`${where} is truncated: ${size} bytes, too short for a header`);
  }
  const prefix = new Uint8Array(8);
  await source.read(file, 0, prefix);
  const headerBytes = new DataView(prefix.buffer).getBigUint64(0, true);
  if (headerBytes > headerBytesMax) {
    throw new CheckpointError(
      `${where} claims a header of ${headerBytes} bytes; at most ${headerBytesMax} are allowed`,
    );
  }
  const dataStart = 8 + Number(headerBytes);
  if (dataStart > size) {
    throw new CheckpointError(
      `${where} is truncated: its header ends at byte ${dataStart}, the file at byte ${size}`,
    );
  }
  const header = new Uint8Array(dataStart - 8);
  await source.read(file, 8, header);
  const entries = Object.entries(parseJsonObject(source, `the header of ${file}`, header));

  const tensors: StoredTensor[] = [];
  for (const [name, entry] of entries) {
    if (name === '__metadata__') checkMetadata(where, entry);
    else tensors.push(parseTensor({ where, file, name, dataStart, entry }));
  }
  tensors.sort((a, b) => a.start - b.start || a.end - b.end);
  checkCoverage(where, tensors, { start: dataStart, end: size });
  return tensors;
}

function checkMetadata(where: string, metadata: unknown): void {
  const fits =
    isRecord(metadata) && Object.values(metadata).every((value) => typeof value === 'string');
  if (!fits) throw new CheckpointError(`${where}: __metadata__ is not a map of strings`);
}

function parseTensor(options: {
  where: string;
  file: string;
  name: string;
  dataStart: number;
  entry: unknown;
}): StoredTensor {
  const { where, file, name, dataStart, entry } = options;
  const fail = (problem: string) => new CheckpointError(`${where}: tensor ${name} ${problem}`);

  if (!isRecord(entry)) throw fail('is not described by an object');
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string') throw fail('has no dtype');
  const elementBytes = dtypeBytes.get(dtype);
  if (elementBytes === undefined) throw fail(`has the unknown dtype ${dtype}`);
  if (!isNaturals(shape)) {
    throw fail(`has the shape ${JSON.stringify(shape)}, not a list of integers >= 0`);
  }
  if (!isNaturals(offsets) || offsets.length !== 2) {
    throw fail(`has the offsets ${JSON.stringify(offsets)}, not two integers >= 0`);
  }
  const [begin = 0, end = 0] = offsets;
  if (begin > end) throw fail(`begins at ${begin}, after its end at ${end}`);
  const bytes = shape.reduce((product, size) => product * size, elementBytes);
  if (bytes !== end - begin) {
    throw fail(`has ${end - begin} bytes, but ${dtype} [${shape.join(', ')}] takes ${bytes}`);
  }
  return { name, file, dtype, shape, start: dataStart + begin, end: dataStart + end };
}

/**
 * `tensors` are in the order of their bytes, so that each must begin where the one before ended.
 */
function checkCoverage(
  where: string,
  tensors: readonly StoredTensor[],
  data: { start: number; end: number },
): void {
  let covered = data.start;
  for (const { name, start, end } of tensors) {
    if (end > data.end) {
      throw new CheckpointError(
        `${where}: tensor ${name} ends at byte ${end}, past the end of the file at ${data.end}; ` +
          'the file is truncated or its header wrong',
      );
    }
    if (start < covered) {
      throw new CheckpointError(`${where}: tensor ${name} overlaps the one before it`);
    }
    if (start > covered) {
      throw new CheckpointError(
        `${where}: ${start - covered} bytes before tensor ${name} belong to no tensor`,
      );
    }
    covered = end;
  }
  if (covered < data.end) {
    throw new CheckpointError(
      `${where} has ${data.end - covered} trailing bytes that belong to no tensor`,
    );
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNaturals(value: unknown): value is number[] {
  return (
    Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && Number(item) >= 0)
  );
}
