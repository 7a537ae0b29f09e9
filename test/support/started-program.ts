/**
 * A program of ours in a process of its own: where it listens, what it said, and its end by pid.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** Kept of what it said; the oldest is forgotten first. */
const saidCharactersMax = 4 * 2 ** 20;
const startMsMax = 60_000;
/** A program that was told to stop and does not is killed after this long. */
const stopMsMax = 20_000;

export interface StartedProgram {
  readonly pid: number;
  readonly url: string;
  isRunning(): boolean;
  /** All that it has printed since the mark, both outputs together. */
  said(mark?: number): string;
  /** The length of its output so far, for `said`. */
  mark(): number;
  stop(): Promise<void>;
}

/**
 * Resolves once it has printed the address that it listens on, on loopback.
 * @param options.env beside the path alone, so that no setting of the caller's shell gets in.
 * @throws Error with what it said, if it ends before that.
 */
export async function startProgram(options: {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The CPUs that it may run on, as taskset(1) lists them; all unless given. */
  readonly cpus?: string | undefined;
}): Promise<StartedProgram> {
  const { file, args } = commandOf(options.args, options.cpus);
  const child = spawn(file, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...options.env },
  });
  const output = keepOutput();
  const address = Promise.withResolvers<string>();
  let hasAddress = false;
  const listen = (bytes: Buffer): void => {
    output.add(bytes.toString('latin1'));
    // A program that logs every request says a lot, of which nothing is looked for any more.
    if (hasAddress) return;
    const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(output.since(0)) ?? [];
    if (url === undefined) return;
    hasAddress = true;
    address.resolve(url);
  };
  child.stdout.on('data', listen);
  child.stderr.on('data', listen);
  const closed = once(child, 'close');
  const isRunning = (): boolean => child.exitCode === null && child.signalCode === null;
  const name = options.args.find((arg) => arg.endsWith('.ts'));
  void closed.then(() =>
    address.reject(new Error(`${name} ended: ${output.since(0).slice(-2_000)}`)),
  );
  const late = setTimeout(
    () => address.reject(new Error(`${name} does not listen: ${output.since(0).slice(-2_000)}`)),
    startMsMax,
  );
  const stop = async (): Promise<void> => {
    if (!isRunning()) return;
    child.kill('SIGINT');
    const kill = setTimeout(() => child.kill('SIGKILL'), stopMsMax);
    await closed;
    clearTimeout(kill);
  };
  try {
    const url = await address.promise;
    const { pid } = child;
    if (pid === undefined) throw new Error(`${name} did not start`);
    const said = (from = 0): string => output.since(from);
    return { pid, url, isRunning, said, mark: output.length, stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(late);
  }
}

/** Keeps the newest of what a program says, at little cost for each piece. */
function keepOutput() {
  let pieces: string[] = [];
  let kept = 0;
  let forgotten = 0;
  return {
    add(piece: string): void {
      pieces.push(piece);
      kept += piece.length;
      if (kept < 2 * saidCharactersMax) return;
      const newest = pieces.join('').slice(-saidCharactersMax);
      forgotten += kept - newest.length;
      kept = newest.length;
      pieces = [newest];
    },
    length: (): number => forgotten + kept,
    since: (from: number): string => pieces.join('').slice(Math.max(0, from - forgotten)),
  };
}

function commandOf(args: readonly string[], cpus: string | undefined) {
  if (cpus === undefined) return { file: process.execPath, args: [...args] };
  // taskset becomes the program that it starts, so the process id stays.
  return { file: 'taskset', args: ['--cpu-list', cpus, process.execPath, ...args] };
}
