/** Hands a request's body to the text threads. Its size was limited before. */
import type { Context } from 'hono';
import { ApiError } from './errors.ts';
import type { ServedModel } from './lifecycle.ts';
import type { AppEnv } from './services.ts';
import type { ReadByRoute, TextRoute } from './text-model.ts';

/** @throws ApiError */
export async function readBody<Route extends TextRoute>(
  c: Context<AppEnv>,
  model: ServedModel,
  route: Route,
): Promise<ReadByRoute[Route]> {
  checkKind(c);
  const { id, stop } = c.get('access');
  const received = await c.req.arrayBuffer();
  const body = new SharedArrayBuffer(received.byteLength);
  new Uint8Array(body).set(new Uint8Array(received));
  const { description } = model.engine;
  return model.text.read({ route, id, body, description }, stop.signal);
}

/** @throws ApiError 415 */
function checkKind(c: Context<AppEnv>): void {
  const type = c.req.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase();
  // Without a content type the body is taken for what it is; with another one the client is mistaken.
  if (type !== undefined && type !== 'application/json' && !type.endsWith('+json')) {
    throw new ApiError('unsupported_media_type', `Expected application/json, received ${type}.`);
  }
  const encoding = c.req.header('content-encoding') ?? 'identity';
  if (encoding !== 'identity') {
    throw new ApiError('unsupported_media_type', `Content-Encoding ${encoding} is not supported.`);
  }
}
