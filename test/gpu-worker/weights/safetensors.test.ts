import { describe, expect, test } from 'vitest';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { readHeader } from '../../../gpu-worker/weights/safetensors.ts';
import { CheckpointError } from '../../../gpu-worker/weights/source.ts';
import {
  bf16,
  directoryWith,
  f32,
  rawFile,
  safetensors,
} from '../../support/weights/published-layouts.ts';

const file = 'model.safetensors';

async function headerOf(content: Uint8Array) {
  const source = await openDirectory(await directoryWith({ [file]: content }));
  try {
    return await readHeader(source, file);
  } finally {
  }
}

/** The message that the file is refused with; it must be a CheckpointError that names the file. */
async function refusal(content: Uint8Array): Promise<string> {
  const error: unknown = await headerOf(content).then(
    () => 'accepted',
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  const message = error instanceof Error ? error.message : '';
  expect(message).toContain(file);
  return message;
}

function fileOf(header: object, dataBytes: number): Uint8Array {
  return rawFile(JSON.stringify(header), new Uint8Array(dataBytes));
}

const pair = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };

describe('a well-formed file', () => {
  test('gives its tensors with their places in the file', async () => {
    const content = safetensors([f32('a', [2, 3], [1, 2, 3, 4, 5, 6]), bf16('b', [1], [7])]);
    const dataStart = content.length - 26;
    expect(await headerOf(content)).toEqual([
      { name: 'a', file, dtype: 'F32', shape: [2, 3], start: dataStart, end: dataStart + 24 },
      { name: 'b', file, dtype: 'BF16', shape: [1], start: dataStart + 24, end: dataStart + 26 },
    ]);
  });

  test('may list its tensors in another order than their bytes', async () => {
    const header = { late: { ...pair, data_offsets: [8, 16] }, early: pair };
    const tensors = await headerOf(fileOf(header, 16));
    expect(tensors.map((tensor) => tensor.name)).toEqual(['early', 'late']);
  });

  test('may hold scalars, empty tensors and metadata, and pad its header with spaces', async () => {
    const header = {
      __metadata__: { format: 'pt' },
      scalar: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
      empty: { dtype: 'F32', shape: [0, 9], data_offsets: [4, 4] },
    };
    const content = rawFile(`${JSON.stringify(header)}     `, new Uint8Array(4));
    const tensors = await headerOf(content);
    expect(tensors.map((tensor) => tensor.name)).toEqual(['scalar', 'empty']);
  });

  test('may hold no tensor at all', async () => {
    expect(await headerOf(fileOf({}, 0))).toEqual([]);
  });
});

describe('a truncated file', () => {
  test('is refused when even the length is missing', async () => {
    expect(await refusal(new Uint8Array(0))).toContain('0 bytes, too short');
    expect(await refusal(new Uint8Array(7))).toContain('7 bytes, too short');
  });

  test('is refused when it ends inside the header', async () => {
    const content = fileOf({ pair }, 8);
    expect(await refusal(content.subarray(0, 20))).toContain('truncated');
  });

  test('is refused when it ends inside a tensor, which is named', async () => {
    const content = fileOf({ pair }, 8);
    const message = await refusal(content.subarray(0, content.length - 1));
    expect(message).toContain('tensor pair');
    expect(message).toContain('past the end of the file');
  });

  test('is refused wherever it was cut', async () => {
    const content = safetensors([f32('a', [2], [1, 2]), bf16('b', [3], [3, 4, 5])]);
    for (let bytes = 0; bytes < content.length; bytes++) {
      expect(await refusal(content.subarray(0, bytes))).not.toBe('');
    }
  });
});

describe('a header', () => {
  test('of more than 100 MB is refused before it is read', async () => {
    expect(await refusal(rawFile('{}', new Uint8Array(0), 100_000_001n))).toContain('at most');
    expect(await refusal(rawFile('{}', new Uint8Array(0), 2n ** 64n - 1n))).toContain('at most');
  });

  test('that would end past the end of the file is refused', async () => {
    expect(await refusal(rawFile('{}', new Uint8Array(0), 3n))).toContain('truncated');
  });

  test.each([
    ['text', 'hello', 'not valid JSON'],
    ['nothing', '', 'not valid JSON'],
    ['half an object', '{"a":', 'not valid JSON'],
    ['an array', '[]', 'not a JSON object'],
    ['null', 'null', 'not a JSON object'],
    ['a string', '"{}"', 'not a JSON object'],
  ])('of %s is refused', async (_, header, problem) => {
    expect(await refusal(rawFile(header, new Uint8Array(0)))).toContain(problem);
  });

  test('that is not UTF-8 is refused', async () => {
    const header = Uint8Array.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]);
    expect(await refusal(rawFile(header, new Uint8Array(0)))).toContain('not valid UTF-8');
  });

  test('that names a tensor twice is refused, however the name is spelled', async () => {
    const entry = JSON.stringify(pair);
    const twice = `{"a":${entry},"\\u0061":${entry}}`;
    expect(await refusal(rawFile(twice, new Uint8Array(8)))).toContain('the key a twice');
    const inside = `{"a":{"dtype":"F32","dtype":"BF16","shape":[2],"data_offsets":[0,8]}}`;
    expect(await refusal(rawFile(inside, new Uint8Array(8)))).toContain('the key dtype twice');
  });

  test.each([[['pt']], ['pt'], [{ format: 1 }], [null]])(
    'with the metadata %j is refused',
    async (metadata) => {
      const message = await refusal(fileOf({ __metadata__: metadata }, 0));
      expect(message).toContain('__metadata__ is not a map of strings');
    },
  );
});

describe('a tensor', () => {
  test.each([
    ['no object', 'F32', 'not described by an object'],
    ['no dtype', { shape: [2], data_offsets: [0, 8] }, 'no dtype'],
    ['an unknown dtype', { ...pair, dtype: 'F4' }, 'unknown dtype F4'],
    ['a dtype like an object key', { ...pair, dtype: 'constructor' }, 'unknown dtype'],
    ['no shape', { dtype: 'F32', data_offsets: [0, 8] }, 'not a list of integers'],
    ['a negative size', { ...pair, shape: [-2] }, 'shape [-2]'],
    ['a fractional size', { ...pair, shape: [1.5] }, 'shape [1.5]'],
    ['a size of text', { ...pair, shape: ['2'] }, 'shape ["2"]'],
    ['a size too large to be exact', { ...pair, shape: [2 ** 53] }, 'not a list of integers'],
    ['sizes whose product overflows', { ...pair, shape: [2 ** 50, 2 ** 50] }, 'has 8 bytes'],
    ['one offset', { ...pair, data_offsets: [8] }, 'not two integers'],
    ['a negative offset', { ...pair, data_offsets: [-8, 0] }, 'not two integers'],
    ['a begin after its end', { ...pair, data_offsets: [8, 0] }, 'begins at 8, after its end at 0'],
    ['fewer bytes than its shape', { ...pair, shape: [3] }, 'has 8 bytes, but F32 [3] takes 12'],
    ['more bytes than its shape', { ...pair, shape: [1] }, 'has 8 bytes, but F32 [1] takes 4'],
  ])('with %s is refused by name', async (_, entry, problem) => {
    const message = await refusal(fileOf({ 'a.weight': entry }, 8));
    expect(message).toContain('tensor a.weight');
    expect(message).toContain(problem);
  });

  test('that overlaps another is refused', async () => {
    const header = { a: pair, b: { ...pair, data_offsets: [4, 12] } };
    expect(await refusal(fileOf(header, 12))).toContain('tensor b overlaps');
  });

  test('that shares all bytes of another is refused', async () => {
    expect(await refusal(fileOf({ a: pair, b: pair }, 8))).toContain('tensor b overlaps');
  });

  test('that leaves a gap before it is refused', async () => {
    const header = { a: pair, b: { ...pair, data_offsets: [12, 20] } };
    expect(await refusal(fileOf(header, 20))).toContain('4 bytes before tensor b');
    const first = { a: { ...pair, data_offsets: [4, 12] } };
    expect(await refusal(fileOf(first, 12))).toContain('4 bytes before tensor a');
  });

  test('that ends past the end of the file is refused', async () => {
    const header = { a: { ...pair, data_offsets: [8_000_000_000_000, 8_000_000_000_008] } };
    expect(await refusal(fileOf(header, 8))).toContain('past the end of the file');
  });
});

test('bytes after the last tensor are refused', async () => {
  expect(await refusal(fileOf({ pair }, 11))).toContain('3 trailing bytes');
});
