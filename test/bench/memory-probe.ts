/**
 * Loaded before a program that is measured (`--expose-gc --import`): upon SIGUSR2 it collects what
 * is garbage and prints a line of what memory the process takes then.
 */
const tries = 3;
const pauseMs = 100;

process.on('SIGUSR2', () => void collect());

async function collect(): Promise<void> {
  // Objects that finalizers let go are garbage only at the next collection.
  for (let each = 0; each < tries; each++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
  console.log(`\n${JSON.stringify({ memoryProbe: { rss, heapUsed, heapTotal, external } })}`);
}
