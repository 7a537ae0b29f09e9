/** The name that somebody most likely meant, for errors about names that do not exist. */
import { strict as assert } from 'node:assert';

/** Names that people type are shorter; the distance costs the product of two lengths. */
const lengthMax = 256;

/**
 * Returns the nearest of the names that hold the one asked for, or are held by it; else the nearest
 * of all. Nearest is the least number of letters to insert, remove, replace or swap, whatever their
 * case.
 * @returns null if there are no names, or the one asked for is too long to be one.
 */
export function nearestName(asked: string, names: readonly string[]): string | null {
  const wanted = asked.toLowerCase();
  if (wanted.length > lengthMax) return null;
  const folded = names.map((name) => ({ name, text: name.slice(0, lengthMax).toLowerCase() }));
  const related = folded.filter(
    ({ text }) => text !== '' && (text.includes(wanted) || wanted.includes(text)),
  );
  let nearest: { readonly name: string; readonly distance: number } | null = null;
  for (const { name, text } of related.length > 0 ? related : folded) {
    const distance = editDistance(wanted, text);
    if (nearest === null || distance < nearest.distance) nearest = { name, distance };
  }
  return nearest?.name ?? null;
}

/** A sentence about the nearest name, to stand behind one that says that a name does not exist. */
export function nearestAdvice(asked: string, names: readonly string[]): string {
  const nearest = nearestName(asked, names);
  return nearest === null ? '' : ` The nearest one is ${nearest}.`;
}

/** The distance of Damerau and Levenshtein, each pair of neighbours swapped at most once. */
export function editDistance(a: string, b: string): number {
  // Rows of the table of distances between beginnings: the one before the last, the last, this one.
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = distanceAt(last, column - 1) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const removed = distanceAt(last, column) + 1;
      const inserted = distanceAt(current, column - 1) + 1;
      const isSwap =
        row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const swapped = isSwap ? distanceAt(before, column - 2) + 1 : Infinity;
      current.push(Math.min(replaced, removed, inserted, swapped));
    }
    before = last;
    last = current;
  }
  return distanceAt(last, b.length);
}

function distanceAt(row: readonly number[], column: number): number {
  const distance = row[column];
  assert(distance !== undefined, 'a row has a distance for every column');
  return distance;
}
