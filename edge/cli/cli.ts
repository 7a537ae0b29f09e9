/**
 * The operator's command line: `sift admin tenants create acme`. A thin layer over the admin
 * API of a running edge; what it prints with --json is that API's answer.
 */
import { join } from 'node:path';
import type { Command } from '@commander-js/extra-typings';
import { z } from 'zod';
import { environment } from '../../infra/settings.ts';
import { createProgram, runProgram } from '../../infra/program.ts';
import type { CommandModule } from '../../infra/program.ts';
import { addBackupCommands } from './backup.ts';
import { edgeUrlOf, reasonOf, urlOf } from './edge-url.ts';
import { addBudgetCommands } from './budgets.ts';
import { addCatalogueCommands } from './catalogue.ts';
import { addKeyCommands } from './keys.ts';
import { addMoneyCommands } from './money.ts';
import { UserError } from '../../infra/user-error.ts';
import type { Call, Operator } from './operator.ts';
import { addReportCommands } from './reports.ts';
import { addTenantCommands } from './tenants.ts';
import { textOf } from './text.ts';
import { addWorkerCommands } from './workers.ts';

export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly fetch: typeof fetch;
  readonly print: (text: string) => void;
  readonly printError: (text: string) => void;
}

export const configure: CommandModule['configure'] = (program) => {
  try {
    // On the edge's own machine its secrets are at hand; what is set already stays.
    process.loadEnvFile(join(environment()['EDGE_DATA'] || './data', 'secrets.env'));
  } catch {
    // Not the edge's machine, or not its user: then EDGE_ADMIN_TOKEN says who asks.
  }
  configureFor(program, {
    env: environment(),
    fetch,
    print: console.log,
    printError: console.error,
  });
};

/**
 * @returns the exit code: 0, 1 if the edge refused or is not there, 2 if the command line is wrong.
 */
export async function runCli(args: readonly string[], context: CliContext): Promise<number> {
  const program = createProgram('sift admin', "the operator's commands");
  configureFor(program, context);
  return runProgram(program, args);
}

function configureFor(bare: Command, context: CliContext): void {
  const { env, print, printError } = context;
  const program = bare
    .option('--url <url>', 'where the edge is (default: EDGE_URL, else this machine)', urlOf)
    .option('--json', "print the API's own answer, with exact integers")
    .configureOutput({
      writeOut: (text) => print(text.trimEnd()),
      writeErr: (text) => printError(text.trimEnd()),
    })
    .addHelpText('after', "\nThe operator's token comes from EDGE_ADMIN_TOKEN or EDGE_DATA.");
  const operator: Operator = {
    env,
    call: (...request) => createCall(context, program.opts().url)(...request),
    async show(asked) {
      const answer = await asked;
      if (typeof answer === 'string') print(answer.trimEnd());
      else print(program.opts().json ? JSON.stringify(answer, null, 2) : textOf(answer));
    },
  };
  addTenantCommands(program, operator);
  addKeyCommands(program, operator);
  addBudgetCommands(program, operator);
  addMoneyCommands(program, operator);
  addCatalogueCommands(program, operator);
  addWorkerCommands(program, operator);
  addReportCommands(program, operator);
  addBackupCommands(program, operator);
}

const errorSchema = z.object({ error: z.object({ message: z.string() }) });

function createCall({ env, fetch }: CliContext, asked: string | undefined): Call {
  const url = asked ?? edgeUrlOf(env);
  const token = env['EDGE_ADMIN_TOKEN'];
  const whence = 'an edge that made its own token keeps it in secrets.env of its EDGE_DATA';
  if (!token) throw new UserError(`EDGE_ADMIN_TOKEN is not set; ${whence}`);
  return async (method, path, body) => {
    let response: Response;
    try {
      response = await fetch(`${url}/admin${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    } catch (cause) {
      const why = reasonOf(cause);
      throw new UserError(
        `no edge answers at ${url} (${why}); start it, or set --url or EDGE_URL`,
        {
          cause,
        },
      );
    }
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
    if (response.ok) return isJson ? JSON.parse(text) : text;
    if (response.status === 401) {
      throw new UserError(`the edge at ${url} does not know this EDGE_ADMIN_TOKEN; ${whence}`);
    }
    const error = isJson ? errorSchema.safeParse(JSON.parse(text)).data?.error.message : undefined;
    throw new UserError(error ?? `${url} answered ${response.status}, which no edge of sift does`);
  };
}
