/**
 * JSON from a server that might send anything: read up to a bound, unpacked bytes counted, and
 * looked at for nesting, so that no recursion over it meets the end of the stack.
 */

/** Levels of nesting that are read: far more than a body of any client or engine has. */
export const nestingMax = 256;

/** Returns undefined if the body is not JSON, or longer than that. */
export async function readBoundedJson(
  { body }: { readonly body: AsyncIterable<Uint8Array> | null },
  bytesMax: number,
): Promise<unknown> {
  const decoder = new TextDecoder();
  let bytes = 0;
  let text = '';
  try {
    for await (const piece of body ?? []) {
      bytes += piece.length;
      // Leaving the loop cancels the rest of the body.
      if (bytes > bytesMax) return undefined;
      text += decoder.decode(piece, { stream: true });
    }
  } catch {
    return undefined;
  }
  return parseJson(text);
}

/** Returns undefined for text that is no JSON, or nested deeper than `nestingMax` levels. */
export function parseJson(text: string): unknown {
  try {
    const json: unknown = JSON.parse(text);
    // A level takes two characters.
    return text.length > 2 * nestingMax && isNestedDeeper(json, nestingMax) ? undefined : json;
  } catch {
    return undefined;
  }
}

export function isNestedDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  const inside: readonly unknown[] = Array.isArray(value) ? value : Object.values(value);
  return inside.some((each) => isNestedDeeper(each, levels - 1));
}
