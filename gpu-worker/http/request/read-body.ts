/** Hands a request's body to the text threads. Its size was limited before. */
import type { Context } from 'hono';
import { ApiError } from '../api-error.ts';
import type { ServedModel } from '../lifecycle.ts';
import type { AppEnv } from '../worker-services.ts';
import type { ReadByRoute, TextRoute } from '../text/text-model.ts';

/** @throws ApiError */
export async function readBody<Route extends TextRoute>(
  c: Context<AppEnv>,
  model: ServedModel,
  route: Route,
): Promise<ReadByRoute[Route]> {
  checkKind(c);
  const context = c.get('context');
  const body = await receive(c);
  const { description } = model.engine;
  const asked = { route, id: context.id, body, description };
  const read = await model.text.read(asked, context.stop.signal);
  if ('user' in read) context.user = read.user;
  return read;
}

/** Room for the beginning of a body of unknown size. */
const firstBytes = 64 * 1024;

/** Pieces are copied as they come, so that the end of a large body brings no work of its length. */
async function receive(c: Context<AppEnv>): Promise<SharedArrayBuffer> {
  const stated = c.req.header('content-length');
  let kept = new Uint8Array(new SharedArrayBuffer(Number(stated ?? firstBytes)));
  let size = 0;
  for await (const piece of c.req.raw.body ?? []) {
    if (size + piece.length > kept.length) {
      kept = inRoomFor(Math.max(size + piece.length, 2 * size), kept);
    }
    kept.set(piece, size);
    size += piece.length;
  }
  return size === kept.length ? kept.buffer : inRoomFor(size, kept.subarray(0, size)).buffer;
}

function inRoomFor(bytes: number, kept: Uint8Array): Uint8Array<SharedArrayBuffer> {
  const room = new Uint8Array(new SharedArrayBuffer(bytes));
  room.set(kept);
  return room;
}

/** @throws ApiError 415 */
function checkKind(c: Context<AppEnv>): void {
  const type = c.req.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase();
  // A body without a content type is taken for what it is; with another one the client is mistaken.
  if (type !== undefined && type !== 'application/json' && !type.endsWith('+json')) {
    throw new ApiError('unsupported_media_type', `Expected application/json, received ${type}.`);
  }
  const encoding = c.req.header('content-encoding') ?? 'identity';
  if (encoding !== 'identity') {
    throw new ApiError('unsupported_media_type', `Content-Encoding ${encoding} is not supported.`);
  }
}
