/**
 * Writes safetensors files: 8 bytes of header length, a JSON header, the tensors' bytes. `pack`
 * makes well-formed ones; `assemble` takes any header text, so that tests can write broken files
 * too.
 */

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface HeaderEntry {
  dtype: string;
  shape: readonly number[];
  data_offsets: [number, number];
}

/** The header of tensors that lie one after the other, without gaps. */
export function headerOf(tensors: readonly TensorToWrite[]): Record<string, HeaderEntry> {
  const header: Record<string, HeaderEntry> = {};
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.byteLength] };
    offset += bytes.byteLength;
  }
  return header;
}

export function pack(tensors: readonly TensorToWrite[]): Uint8Array {
  const text = JSON.stringify({ __metadata__: { format: 'pt' }, ...headerOf(tensors) });
  // Publishers pad the header with spaces, so that tensors start at a multiple of 8.
  const padded = text.padEnd(Math.ceil(text.length / 8) * 8, ' ');
  return assemble({ header: padded, body: Buffer.concat(tensors.map(({ bytes }) => bytes)) });
}

/**
 * `headerBytes` is the length that the file claims its header to have; the true one unless given.
 */
export function assemble(parts: {
  header: string;
  body: Uint8Array;
  headerBytes?: bigint;
}): Uint8Array {
  const header = Buffer.from(parts.header, 'utf8');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(parts.headerBytes ?? BigInt(header.length));
  return Buffer.concat([length, header, parts.body]);
}
