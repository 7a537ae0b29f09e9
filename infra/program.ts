/**
 * The command line that all programs share: `--help` and `--version` everywhere, suggestions for what
 * was mistyped, and errors that are one line. Exit codes: 0 also for help, 2 for a command line that is
 * wrong, 1 for what went wrong later.
 */
import { Command, CommanderError, InvalidArgumentError } from '@commander-js/extra-typings';
import manifest from '../package.json' with { type: 'json' };

export const version = manifest.version;

/** What stands after the program on the command line is a value that cannot be taken. */
export { InvalidArgumentError };

/** @param name what people type, such as `npm run worker --`. */
export function createProgram(name: string, summary: string): Command {
  return new Command(name)
    .description(summary)
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this')
    .showHelpAfterError('(--help says how it is used)')
    .configureHelp({ showGlobalOptions: true })
    .exitOverride();
}

/**
 * Parses the arguments, runs the action that they name, and prints what goes wrong.
 * @param isExpected whether an error's message is all that its reader needs, without a stack trace.
 * @returns the exit code.
 */
export async function runProgram(
  program: Pick<Command, 'parseAsync' | 'configureOutput'>,
  args: readonly string[],
  isExpected: (error: Error) => boolean,
): Promise<number> {
  const { writeErr = (text: string) => void process.stderr.write(text) } =
    program.configureOutput();
  try {
    await program.parseAsync([...args], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof InvalidArgumentError) writeErr(`error: ${error.message}\n`);
    // Every other error of the parser has been printed by it.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const isPlain = error instanceof Error && isExpected(error);
    writeErr(`${isPlain ? error.message : inFull(error)}\n`);
    return 1;
  }
}

function inFull(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
