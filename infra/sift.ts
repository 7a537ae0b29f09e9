#!/usr/bin/env node
/**
 * `sift <command>`: the one command line of everything here; every npm script calls it. A command's
 * code is loaded once it is asked for, so that one starts no slower because there are others.
 */
import { createProgram, runProgram } from './program.ts';
import type { CommandModule } from './program.ts';
import { restartWithSemiSpace } from './semi-space.ts';

interface SiftCommand {
  readonly summary: string;
  /** The size of a server's young generation: it runs for days, and V8 would grow its heap. */
  readonly semiSpaceMiB?: number;
  load(): Promise<CommandModule>;
}

const commands: Readonly<Record<string, SiftCommand>> = {
  start: {
    summary: 'the whole system on this machine, with a demo tenant',
    semiSpaceMiB: 8,
    load: () => import('./start.ts'),
  },
  'start-workerd': {
    summary: 'the whole system, with its edge in workerd',
    semiSpaceMiB: 8,
    load: () => import('./start-workerd.ts'),
  },
  demo: {
    summary: 'what sparse attention and a cached prefix save, on a book',
    semiSpaceMiB: 8,
    load: () => import('./demo.ts'),
  },
  edge: {
    summary: 'the edge on Node: the public API and its operator',
    // Requests leave little behind: twice the size takes a sixth off their processor time.
    semiSpaceMiB: 16,
    load: () => import('../edge/cli/serve.ts'),
  },
  worker: {
    summary: 'one worker: serves a checkpoint',
    semiSpaceMiB: 8,
    load: () => import('../gpu-worker/commands/worker.ts'),
  },
  admin: {
    summary: "the operator's commands",
    load: () => import('../edge/cli/cli.ts'),
  },
  receipt: {
    summary: 'verifies the signed receipt of a request',
    load: () => import('../edge/cli/receipt.ts'),
  },
  score: {
    summary: 'what a checkpoint says of a token sequence, as one JSON object',
    load: () => import('../gpu-worker/commands/score.ts'),
  },
  plan: {
    summary: 'how a checkpoint would lie on the GPUs of a machine, without one',
    load: () => import('../gpu-worker/commands/plan.ts'),
  },
  render: {
    summary: 'the exact prompt of a chat request',
    load: () => import('../gpu-worker/commands/render.ts'),
  },
  parse: {
    summary: 'the message that the text of a completion stands for, as JSON',
    load: () => import('../gpu-worker/commands/parse.ts'),
  },
  manifest: {
    summary: "writes the hashes of a checkpoint's files beside them",
    load: () => import('../gpu-worker/commands/manifest.ts'),
  },
  bench: {
    summary: 'runs benchmarks that need no GPU, one by one',
    load: () => import('../test/bench/run.ts'),
  },
  fuzz: {
    summary: 'feeds mutants to parsers and routes',
    load: () => import('../test/fuzz/run.ts'),
  },
  hostile: {
    summary: 'attacks the whole system, on this machine alone',
    load: () => import('../test/hostile/run.ts'),
  },
  soak: {
    summary: 'keeps the whole system busy, and looks for leaks',
    load: () => import('../test/soak/run.ts'),
  },
};

const code = await run(process.argv.slice(2));
// Whatever had started before it failed would keep the process.
if (code !== 0) process.exit(code);

async function run(args: readonly string[]): Promise<number> {
  const [name = '', ...rest] = args;
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) return runProgram(overview(), args);
  if (command.semiSpaceMiB !== undefined) restartWithSemiSpace(command.semiSpaceMiB);
  const program = createProgram(`sift ${name}`, command.summary);
  const { configure } = await command.load();
  configure(program);
  return runProgram(program, rest);
}

/** Answers for command lines that name no command: help, version and what was mistyped. */
function overview() {
  const program = createProgram('sift', 'a metered, multi-tenant LLM API that you run yourself')
    .helpCommand(false)
    .addHelpText('after', '\nsift <command> --help says how a command is used.');
  for (const [name, { summary }] of Object.entries(commands)) {
    program.command(name).description(summary);
  }
  return program;
}
