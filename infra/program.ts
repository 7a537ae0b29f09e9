/**
 * The command line that all programs share: `--help` and `--version` everywhere, suggestions for what
 * was mistyped, and errors that are one line. Exit codes: 0 also for help, 2 for a command line that is
 * wrong, 1 for what went wrong later.
 */
import { Command, CommanderError } from '@commander-js/extra-typings';
import type { OutputConfiguration } from '@commander-js/extra-typings';
import manifest from '../package.json' with { type: 'json' };

export const version = manifest.version;

/** A value on the command line, or of a variable, that cannot be taken: its message says why. */
export class UsageError extends Error {
  override name = 'UsageError';
}

const helpAdvice = '(--help says how it is used)';

/** One command of `sift`. */
export interface CommandModule {
  /** Adds the command's arguments, options and action. */
  configure(program: Command): void;
  /** Tells errors whose message is all that their reader needs; all others get a stack trace. */
  readonly isExpected?: (error: Error) => boolean;
}

/** @param name what people type, such as `sift worker`. */
export function createProgram(name: string, summary: string): Command {
  return new Command(name)
    .description(summary)
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this')
    .showHelpAfterError(helpAdvice)
    .configureHelp({ showGlobalOptions: true })
    .exitOverride();
}

/** A `Command` of any arguments and options. */
interface Runnable {
  parseAsync(args: readonly string[], options: { readonly from: 'user' }): Promise<unknown>;
  configureOutput(): OutputConfiguration;
}

/**
 * Parses the arguments, runs the action that they name, and prints what goes wrong.
 * @param isExpected whether an error's message is all that its reader needs, without a stack trace.
 * @returns the exit code.
 */
export async function runProgram(
  program: Runnable,
  args: readonly string[],
  isExpected: (error: Error) => boolean,
): Promise<number> {
  const { writeErr = (text: string) => void process.stderr.write(text) } =
    program.configureOutput();
  try {
    await program.parseAsync([...args], { from: 'user' });
    return 0;
  } catch (error) {
    // The parser has printed its own errors.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof UsageError) {
      writeErr(`error: ${error.message}\n${helpAdvice}\n`);
      return 2;
    }
    const isPlain = error instanceof Error && isExpected(error);
    writeErr(`${isPlain ? error.message : inFull(error)}\n`);
    return 1;
  }
}

function inFull(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
