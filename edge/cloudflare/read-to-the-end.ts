/**
 * Reads the body of a client that is refused while it is still sending. workerd closes the
 * connection once the answer is written, and what the client then sends resets it: the answer would
 * be lost with it.
 */

/** A client that sends more than this, or more slowly, may lose its answer. */
const bytesMax = 16 * 1024 * 1024;
const msMax = 5_000;

/** Reads a body that nobody has begun to read, within bounds, and forgets it. Never throws. */
export async function readToTheEnd(request: Request): Promise<void> {
  if (request.body === null || request.bodyUsed) return;
  const reader = request.body.getReader();
  const late = setTimeout(() => void reader.cancel().catch(() => {}), msMax);
  try {
    for (let bytes = 0; bytes < bytesMax;) {
      const { done, value } = await reader.read();
      if (done) return;
      bytes += value.length;
    }
  } catch {
    // The client has left, so nobody waits for the answer.
  } finally {
    clearTimeout(late);
  }
}
