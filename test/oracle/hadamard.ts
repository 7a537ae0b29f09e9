/** The orthonormal Walsh-Hadamard transform by its definition: H[i][j] = (-1)^|i & j| / sqrt(n). */
import { at } from './vector.ts';
import type { Vector } from './vector.ts';

export function hadamard(x: Vector): Vector {
  const factor = x.length ** -0.5;
  return Float64Array.from({ length: x.length }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < x.length; j++) sum += (oddBits(i & j) ? -1 : 1) * at(x, j);
    return sum * factor;
  });
}

function oddBits(word: number): boolean {
  let odd = false;
  for (let rest = word; rest > 0; rest >>= 1) if (rest & 1) odd = !odd;
  return odd;
}
