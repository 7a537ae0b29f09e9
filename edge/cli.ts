/**
 * The operator's command line: `npm run admin -- tenants create acme`. A thin layer over the admin
 * API of a running edge; what it prints with --json is that API's answer.
 */
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { errorOf, findCommand, table, usageOf } from './cli-commands.ts';
import type { Call, Flags } from './cli-commands.ts';

/** Its message is all that the operator needs to see. */
export class CliError extends Error {
  override name = 'CliError';
}

export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly fetch: typeof fetch;
  readonly print: (text: string) => void;
}

const flagOptions = {
  url: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** @throws CliError */
export async function runCli(args: readonly string[], context: CliContext): Promise<void> {
  const words = wordsOf(args);
  const command = findCommand(words);
  if (command === null || args.includes('--help') || args.includes('-h')) {
    if (command === null && words.length > 0) {
      throw new CliError(`there is no command '${words.join(' ')}'\n\n${usageOf(null)}`);
    }
    context.print(usageOf(command));
    return;
  }
  const { flags, values } = readFlags(args, command.options, command.name.split(' ').length);
  if (values.length !== command.parameters.length) {
    throw new CliError(`usage: ${usageOf(command)}`);
  }
  const call = createCall(context, flags);
  const answer = await attempt(() => command.run({ call, values, flags, env: context.env }));
  if (typeof answer === 'string') context.print(answer.trimEnd());
  else context.print(flags['json'] ? JSON.stringify(answer, null, 2) : table(answer));
}

/** The command comes first among them, wherever --url and --json stand. */
function wordsOf(args: readonly string[]): readonly string[] {
  const options = { args: [...args], options: flagOptions, strict: false, allowPositionals: true };
  return parseArgs(options).positionals;
}

/** The commands' own errors are the operator's to read, not a stack trace. */
async function attempt<Result>(run: () => Promise<Result>): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    throw new CliError(errorOf(error), { cause: error });
  }
}

function readFlags(
  args: readonly string[],
  options: readonly string[],
  nameWords: number,
): { readonly flags: Flags; readonly values: readonly string[] } {
  try {
    const named = Object.fromEntries(options.map((name) => [name, { type: 'string' as const }]));
    const { values: flags, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { ...named, ...flagOptions },
    });
    return { flags, values: positionals.slice(nameWords) };
  } catch (error) {
    throw new CliError(errorOf(error), { cause: error });
  }
}

const errorSchema = z.object({ error: z.object({ message: z.string() }) });

function createCall(context: CliContext, flags: Flags): Call {
  const url = String(flags['url'] ?? context.env['EDGE_URL'] ?? 'http://127.0.0.1:8787');
  const token = context.env['EDGE_ADMIN_TOKEN'];
  if (!token) {
    throw new CliError(
      'EDGE_ADMIN_TOKEN is not set; an edge that made its own keeps it in data/secrets.env',
    );
  }
  return async (method, path, body) => {
    let response: Response;
    try {
      response = await context.fetch(`${url.replace(/\/+$/, '')}/admin${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    } catch (cause) {
      throw new CliError(`no edge answers at ${url}; start it, or set --url or EDGE_URL`, {
        cause,
      });
    }
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
    if (response.ok) return isJson ? JSON.parse(text) : text;
    const error = isJson ? errorSchema.safeParse(JSON.parse(text)).data?.error.message : undefined;
    throw new CliError(error ?? `the edge answered ${response.status}`);
  };
}

if (import.meta.main) {
  const data = process.env['EDGE_DATA'] ?? './data';
  try {
    // On the edge's own machine its secrets are at hand; what is set already stays.
    process.loadEnvFile(`${data}/secrets.env`);
  } catch {
    // Not the edge's machine, or not its user: then EDGE_ADMIN_TOKEN says who asks.
  }
  try {
    await runCli(process.argv.slice(2), { env: process.env, fetch, print: console.log });
  } catch (error) {
    console.error(error instanceof CliError ? error.message : error);
    process.exitCode = 1;
  }
}
