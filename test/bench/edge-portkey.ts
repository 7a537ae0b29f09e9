/**
 * Portkey's gateway in a process of its own, for edge.ts: `edge-portkey.ts ENTRY --port=N
 * --headless` prints where it listens once it does. It is no dependency of ours: `npm install
 * @portkey-ai/gateway` in a folder of its own, and name that folder as BENCH_PORTKEY.
 */
import { registerHooks } from 'node:module';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

/** The text that is replaced, in the constructor of its server's Response. */
const asGiven = 'headers || init?.headers';
const triesMax = 300;
const [entry = '', portFlag = ''] = process.argv.slice(2);
const port = Number(portFlag.replace('--port=', ''));

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.includes('/@hono/node-server/') || loaded.source == null) return loaded;
    // It adds headers to a streamed answer, whose headers its server takes as fetch gave them: ones
    // that cannot be changed.
    const source = loaded.source.toString().replace(asGiven, 'headers || copied(init?.headers)');
    const copied = 'const copied = (h) => (h instanceof Headers ? new Headers(h) : h);';
    return { ...loaded, source: `${source}\n${copied}` };
  },
});

// It takes its flags from the command line of the process.
await import(pathToFileURL(entry).href);
for (let tries = 0; tries < triesMax && !(await listens()); tries++) await sleep(100);
console.log(`http://127.0.0.1:${port}`);

async function listens(): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  }).finally(() => socket.destroy()) as Promise<boolean>;
}
