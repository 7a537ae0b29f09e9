/**
 * Frames of text as the body of a streamed answer. A frame is asked for when the client has room
 * for it and not before, so at most one waits here. While none comes, a keep-alive goes out.
 */
const encoder = new TextEncoder();

export interface EventBodyOptions {
  readonly keepAliveMs: number;
  /** Text that clients of the format skip. */
  readonly keepAlive: string;
  /** The end of a body whose frames fail; without it the connection breaks. */
  readonly onError?: (error: unknown) => string;
  /** The client went away, or has not read for `stallMsMax`. */
  readonly onLeave: () => void;
  readonly stallMsMax: number;
}

/** @param first the generator's first result, which may be pending; later ones are pulled. */
export function eventBody(
  frames: AsyncGenerator<string, void>,
  first: Promise<IteratorResult<string, void>>,
  options: EventBodyOptions,
): ReadableStream<Uint8Array> {
  let next = first;
  // A client that leaves before it reads anything awaits none of its failure.
  first.catch(() => {});
  const leave = (): void => {
    reader.stop();
    options.onLeave();
    // Lets the generators close what they hold; one that is still at work does so when it is done.
    frames.return().catch(() => {});
  };
  const reader = watchReader(options.stallMsMax, leave);

  const nextFrame = async (): Promise<string | null> => {
    if (!(await settledWithin(next, options.keepAliveMs))) return options.keepAlive;
    const frame = await next;
    if (frame.done) return null;
    next = frames.next();
    // The next pull awaits it; until then a failure is nobody's.
    next.catch(() => {});
    return frame.value;
  };

  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        reader.reads();
        try {
          const text = await nextFrame();
          if (text === null) {
            reader.stop();
            controller.close();
          } else {
            controller.enqueue(encoder.encode(text));
            reader.waits();
          }
        } catch (error) {
          reader.stop();
          if (options.onError === undefined) throw error;
          controller.enqueue(encoder.encode(options.onError(error)));
          controller.close();
        }
      },
      cancel: leave,
    },
    { highWaterMark: 0 },
  );
}

/** Calls `onStall` once the client has left a frame unread for one to two times `stallMsMax`. */
function watchReader(stallMsMax: number, onStall: () => void) {
  let waiting: 'for the worker' | 'for the client' | 'for long' = 'for the worker';
  const timer = setInterval(() => {
    if (waiting === 'for long') onStall();
    else if (waiting === 'for the client') waiting = 'for long';
  }, stallMsMax);
  return {
    reads: () => void (waiting = 'for the worker'),
    waits: () => void (waiting = 'for the client'),
    stop: () => clearInterval(timer),
  };
}

/**
 * Tells if the promise resolved within that time.
 * @throws its error if it failed in that time.
 */
export async function settledWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true), timeout]);
  } finally {
    clearTimeout(timer);
  }
}
