/**
 * Puts the pieces of an answer's tool calls in order. Engines repeat ids and names in every piece,
 * make up a new id for each, leave indices out or give all calls the same one.
 */
import { z } from 'zod';
import type { ToolCallPiece } from './chunk.ts';

const callsMax = 1024;

const pieceSchema = z.looseObject({
  index: z
    .int()
    .min(0)
    .max(callsMax - 1)
    .nullish()
    .catch(null),
  id: z.string().nullish().catch(null),
  function: z
    .looseObject({
      name: z.string().nullish().catch(null),
      arguments: z.union([z.string(), z.looseObject({})]).nullish(),
    })
    .nullish(),
});

interface Call {
  readonly index: number;
  /** The engine's own index of the call. */
  readonly engineIndex: number | null;
  id: string;
  name: string;
  arguments: string;
  /** true once the call's first piece went out. */
  sent: boolean;
}

export interface ToolCalls {
  /** Returns the calls of one event; pieces that are no calls are passed over. */
  add(pieces: readonly unknown[]): ToolCallPiece[];
  /** Returns the calls that still wait for a name, which never came. */
  flush(): ToolCallPiece[];
  any(): boolean;
}

/** @param makeId the id of a call that has none. */
export function createToolCalls(makeId: (index: number) => string): ToolCalls {
  const calls: Call[] = [];

  const begin = (engineIndex: number | null): Call => {
    const call = { index: calls.length, engineIndex, id: '', name: '', arguments: '', sent: false };
    calls.push(call);
    return call;
  };

  /** Finds the call that a piece continues; undefined if it begins one. */
  const find = (
    piece: { index: number | null; id: string; name: string; json: string },
    touched: ReadonlySet<Call>,
  ): Call | undefined => {
    const { index, id, name } = piece;
    if (index !== null) {
      const call = calls.findLast((each) => each.engineIndex === index);
      return call && isAnother(call, piece) ? undefined : call;
    }
    const known = id === '' ? undefined : calls.find((each) => each.id === id);
    if (known) return known;
    const last = calls.at(-1);
    if (!last || (id !== '' && last.id !== '' && name !== '')) return undefined;
    const isNamed = name !== '' && last.name !== '';
    return isNamed && (name !== last.name || touched.has(last) || isWhole(last.arguments))
      ? undefined
      : last;
  };

  const send = (call: Call, json: string): ToolCallPiece => {
    if (call.sent) return { index: call.index, function: { arguments: json } };
    call.sent = true;
    call.id ||= makeId(call.index);
    const { index, id, name } = call;
    return { index, id, type: 'function', function: { name, arguments: call.arguments } };
  };

  return {
    add(pieces) {
      const touched = new Set<Call>();
      return pieces.flatMap((each) => {
        const parsed = pieceSchema.safeParse(each).data;
        if (!parsed) return [];
        const { arguments: stated, name } = parsed.function ?? {};
        const piece = {
          index: parsed.index ?? null,
          id: parsed.id ?? '',
          name: name ?? '',
          json: typeof stated === 'string' ? stated : stated ? JSON.stringify(stated) : '',
        };
        const found = find(piece, touched);
        if (!found && calls.length >= callsMax) return [];
        const call = found ?? begin(piece.index);
        touched.add(call);
        call.id ||= piece.id;
        call.name ||= piece.name;
        call.arguments += piece.json;
        const isEmpty = call.sent && piece.json === '';
        return isEmpty || call.name === '' ? [] : [send(call, piece.json)];
      });
    },
    flush: () => calls.filter((call) => !call.sent).map((call) => send(call, '')),
    any: () => calls.length > 0,
  };
}

/**
 * Tells if a piece under a call's index is of another call. A new id alone does not show it, since
 * some engines make one up for every piece.
 */
function isAnother(call: Call, piece: { id: string; name: string; json: string }): boolean {
  const { id, name, json } = piece;
  if (id === '' || name === '' || call.id === '' || call.id === id) return false;
  return name !== call.name || (isWhole(call.arguments) && (json === '' || json.startsWith('{')));
}

function isWhole(json: string): boolean {
  try {
    return typeof JSON.parse(json) === 'object';
  } catch {
    return false;
  }
}
