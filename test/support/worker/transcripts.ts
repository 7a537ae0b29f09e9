/** Compares what models said, bit for bit. */
import { at } from '../../../gpu-worker/at.ts';
import type { Transcript } from './model-harness.ts';

/** Names the first difference, in the order in which a forward pass would make it; null if none. */
export function firstDifference(a: Transcript, b: Transcript): string | null {
  return (
    differenceIn('hidden state of stage', a.hidden, b.hidden) ??
    differenceIn('selection of layer', a.selected, b.selected) ??
    differenceIn('logits', [a.logits], [b.logits])
  );
}

type Values = Float32Array | Int32Array;

function differenceIn(
  what: string,
  a: readonly (readonly Values[])[],
  b: readonly (readonly Values[])[],
): string | null {
  if (a.length !== b.length) return `${what}: ${a.length} against ${b.length}`;
  for (const [index, rows] of a.entries()) {
    const others = at(b, index);
    if (rows.length !== others.length) {
      return `${what} ${index}: ${rows.length} against ${others.length} positions`;
    }
    const position = rows.findIndex((row, i) => !sameBits(row, at(others, i)));
    if (position !== -1) return `${what} ${index} at position ${position}`;
  }
  return null;
}

/** Also tells -0 from 0 and finds equal NaNs equal. */
function sameBits(a: Values, b: Values): boolean {
  return Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
}

function bytesOf(values: Values): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
