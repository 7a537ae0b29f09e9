/**
 * Cuts a file into parts: the unit of one request, of one checksum and of one entry in the cache.
 * The manifest's maker, the store's source and the reader of tensors all cut by this rule, so that
 * a part is fetched straight into the buffer that its tensors are handed over from.
 */
import { at } from '../at.ts';

/** Reaches from the first byte to the one after the last. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Neighbours that share a buffer: several small tensors in one part, or one large one in several.
 */
export interface Run<T extends ByteRange> {
  readonly items: readonly T[];
  readonly start: number;
  readonly end: number;
  readonly parts: readonly ByteRange[];
}

/**
 * Groups ranges, which are in the order of their bytes, until a group has `partBytes`. A group has
 * at most twice as many; a larger range is a run of its own, cut into equal parts. Ranges with
 * bytes between them never share a run.
 */
export function planRuns<T extends ByteRange>(ranges: readonly T[], partBytes: number): Run<T>[] {
  const groups: [T, ...T[]][] = [];
  for (const range of ranges) {
    const group = groups.at(-1);
    if (group !== undefined && joins(group, range, partBytes)) group.push(range);
    else groups.push([range]);
  }
  return groups.map((items) => {
    const { start } = items[0];
    const { end } = at(items, items.length - 1);
    return { items, start, end, parts: cutEvenly({ start, end }, partBytes) };
  });
}

/** Tells whether a range follows the group's last and the two have room in one run. */
function joins(group: readonly ByteRange[], range: ByteRange, partBytes: number): boolean {
  const { start } = at(group, 0);
  const { end } = at(group, group.length - 1);
  return end === range.start && end - start < partBytes && range.end - start <= 2 * partBytes;
}

/**
 * Cuts a range into equal parts of at most twice `partBytes`; one if the range is small, even if it
 * is empty.
 */
export function cutEvenly(range: ByteRange, partBytes: number): ByteRange[] {
  const bytes = range.end - range.start;
  const count = bytes <= 2 * partBytes ? 1 : Math.ceil(bytes / (1.5 * partBytes));
  const cut = (index: number) => range.start + Math.floor((bytes * index) / count);
  return Array.from({ length: count }, (_, i) => ({ start: cut(i), end: cut(i + 1) }));
}
