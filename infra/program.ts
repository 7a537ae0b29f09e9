/**
 * The command line that all programs share: `--help` and `--version` everywhere, suggestions for
 * what was mistyped, and errors that are one line. Exit codes: 0 also for help, 2 for a command
 * line that is wrong, 1 for what went wrong later.
 */
import { Command, CommanderError, Option } from '@commander-js/extra-typings';
import type { OutputConfiguration } from '@commander-js/extra-typings';
import manifest from '../package.json' with { type: 'json' };
import { defaultTextOf } from './settings.ts';
import type { Setting, Settings } from './settings.ts';
import { UsageError, UserError } from './user-error.ts';

export const version = manifest.version;

const helpAdvice = '(--help says how it is used)';

/** One command of `sift`. */
export interface CommandModule {
  /** Adds the command's arguments, options and action. */
  configure(program: Command): void;
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
 * Parses the arguments, runs the action that they name, and prints what goes wrong: of a UserError
 * the message, of any other error the stack trace too.
 * @returns the exit code.
 */
export async function runProgram(program: Runnable, args: readonly string[]): Promise<number> {
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
    writeErr(`${error instanceof UserError ? error.message : inFull(error)}\n`);
    return error instanceof UserError ? error.exitCode : 1;
  }
}

function inFull(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/**
 * Adds a flag for every setting that has one, and to the help those that have none.
 * @param take gets the flags that were given, by the names of the table.
 */
export function addSettings(
  program: Command,
  table: Settings,
  take: (flags: Readonly<Record<string, unknown>>) => Promise<void> | void,
): Command {
  const rows = Object.entries(table);
  const options = new Map(
    rows.flatMap(([name, row]) => (row.flag === undefined ? [] : [[name, optionOf(row)] as const])),
  );
  for (const option of options.values()) program.addOption(option);
  const alone = rows.filter(([, { flag }]) => flag === undefined).map(([, row]) => row);
  const width = Math.max(0, ...alone.map(({ env }) => env.length));
  const lines = alone.map((row) => `  ${row.env.padEnd(width)}  ${helpOf(row)}`);
  if (lines.length > 0) {
    program.addHelpText('after', `\nFrom the environment alone:\n${lines.join('\n')}`);
  }
  return program.action((given: Readonly<Record<string, unknown>>) => {
    const byName = [...options].map(([name, option]) => [name, given[option.attributeName()]]);
    return take(Object.fromEntries(byName));
  });
}

function optionOf(row: Setting): Option {
  const value = row.isSwitch === true ? '[true|false]' : '<value>';
  return new Option(`--${row.flag} ${value}`, `${helpOf(row)} [${row.env}]`);
}

function helpOf(row: Setting): string {
  const text = defaultTextOf(row);
  return text === '' ? row.help : `${row.help} (default: ${text})`;
}
