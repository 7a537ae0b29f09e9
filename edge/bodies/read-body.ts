/**
 * Reads the body of a request: within the budget of all bodies, not beyond its longest, and only
 * from a client that keeps sending. Hono's body-limit knows neither a budget nor slow clients.
 */
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import { settledWithin } from '../relay/event-body.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { askForBody, bodyPieces } from './body-pieces.ts';
import type { BodyPieces } from './body-pieces.ts';
import { smallBodyBytesMax } from './body-budget.ts';

/** The window of a client that sends slowly, unless the settings say otherwise. */
const windowMsDefault = 10_000;
/**
 * A client that sends less of its body within a window is refused: its bytes are kept from others.
 */
const windowBytesMin = 64 * 1024;
/** Room for the beginning of a body of unknown size. */
const firstBytes = 64 * 1024;

export interface Body {
  /** The bytes as received, which an idempotency key stands for. */
  readonly bytes: Uint8Array;
  /** To be called once nothing of the body is needed any more. */
  release(): void;
}

export interface JsonBody extends Body {
  readonly json: unknown;
}

export interface BodyLimits {
  /**
   * Shares the budget fairly with other owners: a tenant's id, or a route for all of its callers.
   */
  readonly owner: string;
  readonly bytesMax: number;
}

/**
 * Tells if the body is, or for all that is known may be, longer than what arrives beside the
 * headers.
 */
export function mayBeLarge(c: AppContext): boolean {
  const bytes = statedBytes(c);
  return bytes === null || bytes > smallBodyBytesMax;
}

/**
 * @throws ApiError 413 before more than `bytesMax` are read, 415 if it is compressed, 429 if there
 * is no room for it, 408 if it comes too slowly, 499 if the client breaks off.
 */
export async function readBody(
  c: AppContext,
  services: Services,
  { owner, bytesMax }: BodyLimits,
): Promise<Body> {
  const stated = statedBytes(c);
  if (stated !== null && stated > bytesMax) throw tooLarge(bytesMax);
  const encoding = c.req.header('content-encoding') ?? 'identity';
  if (encoding !== 'identity') {
    throw new ApiError('unsupported_encoding', 'The body must be sent uncompressed.');
  }
  const reserved = stated ?? bytesMax;
  const { release, shrink } = await services.bodies.reserve(owner, reserved, c.req.raw.signal);
  askForBody(c);
  const windowMs = services.settings.bodyWindowMs ?? windowMsDefault;
  try {
    const bytes =
      stated !== null && stated <= smallBodyBytesMax
        ? await readSmall(c, windowMs)
        : await readLarge(bodyPieces(c), { stated, bytesMax, windowMs });
    shrink(bytes.length);
    return { bytes, release };
  } catch (error) {
    release();
    throw error instanceof ApiError ? error : leftError(error);
  }
}

/**
 * Reads a body that is JSON.
 * @throws ApiError as `readBody` does, and 400 if the body is not JSON.
 */
export async function readJson(
  c: AppContext,
  services: Services,
  limits: BodyLimits,
): Promise<JsonBody> {
  const body = await readBody(c, services, limits);
  try {
    return {
      ...body,
      json: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body.bytes)),
    };
  } catch {
    body.release();
    // The parser's own message quotes the body, which may hold anything.
    throw new ApiError('invalid_json', 'The request body is not valid JSON.');
  }
}

/** Returns null where only the body's end will tell its length. */
function statedBytes(c: AppContext): number | null {
  const text = c.req.header('content-length') ?? '';
  return /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** Reads a small body, all of which is mostly here already. */
async function readSmall(c: AppContext, windowMs: number): Promise<Uint8Array> {
  const reading = c.req.arrayBuffer();
  // A body that comes too slowly is given up.
  reading.catch(() => {});
  if (!(await settledWithin(reading, windowMs))) throw tooSlow();
  return new Uint8Array(await reading);
}

async function readLarge(
  pieces: BodyPieces,
  limits: {
    readonly stated: number | null;
    readonly bytesMax: number;
    readonly windowMs: number;
  },
): Promise<Uint8Array> {
  // The system gives memory to what is written, so a body that never comes takes none.
  let kept = new Uint8Array(limits.stated ?? firstBytes);
  let size = 0;
  let seen = 0;
  const timer = setInterval(() => {
    if (size - seen < windowBytesMin) pieces.stop(tooSlow());
    seen = size;
  }, limits.windowMs);
  try {
    for (;;) {
      const piece = await pieces.next();
      if (piece === null) return kept.subarray(0, size);
      if (size + piece.length > limits.bytesMax) throw tooLarge(limits.bytesMax);
      if (size + piece.length > kept.length) kept = grown(kept, size + piece.length);
      kept.set(piece, size);
      size += piece.length;
    }
  } finally {
    clearInterval(timer);
    pieces.stop(tooSlow());
  }
}

/**
 * Pieces may be single bytes, each an object if it were kept, so they are copied into one buffer.
 */
function grown(bytes: Uint8Array<ArrayBuffer>, lengthMin: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.max(lengthMin, 2 * bytes.length));
  larger.set(bytes);
  return larger;
}

function tooLarge(bytesMax: number): ApiError {
  return new ApiError('request_too_large', `The body exceeds ${bytesMax} bytes.`);
}

function tooSlow(): ApiError {
  return new ApiError('body_too_slow', 'The body came too slowly.');
}

function leftError(cause: unknown): ApiError {
  return new ApiError('client_left', 'The client broke the request off.', { cause });
}
