/**
 * A rank's thread: opens a backend, takes its part of the weights, then runs the commands of the
 * leader. It never waits in an event loop once it serves, so nothing but a command wakes it.
 */
import { strict as assert } from 'node:assert';
import { on } from 'node:events';
import { receiveMessageOnPort } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import type { Backend } from '../backend/backend.ts';
import { familyOf } from '../model/families.ts';
import type { CachelessModel } from '../model/family.ts';
import type { ForwardObserver, Model } from '../model/model.ts';
import { warmUp } from '../model/warm-up.ts';
import type {
  FromLoadingRank,
  Observed,
  Observes,
  RankAnswer,
  RankCommand,
  RankStart,
  ToLoadingRank,
} from './rank-messages.ts';
import { RankSignals } from './rank-signals.ts';

export interface RankThreadOptions<Opening> {
  /** `parentPort` of the thread. */
  readonly port: MessagePort;
  readonly start: RankStart<Opening>;
  openBackend(start: RankStart<Opening>): Promise<Backend>;
  /** Tells a failure that follows from another rank's. */
  isAftermath(error: unknown): boolean;
}

/** Runs until the leader closes the rank, or the rank fails. */
export async function runRankThread<Opening>(options: RankThreadOptions<Opening>): Promise<void> {
  const { port, start } = options;
  const signals = new RankSignals(start.signals, start.rank);
  let isClosed = false;
  // Whatever ends this thread early, the leader must not wait for it.
  process.on('exit', () => {
    if (!isClosed) signals.fail();
  });
  const tell = (message: FromLoadingRank): void => port.postMessage(message, []);
  let backend: Backend | null = null;
  try {
    backend = await options.openBackend(start);
    tell({ kind: 'opened' });
    const model = await load(backend, options, tell);
    serve(model, start, signals);
    isClosed = true;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const answer: RankAnswer = { kind: 'failed', message };
    tell({ kind: 'failed', message });
    start.commands.postMessage(answer, []);
    isClosed = options.isAftermath(error);
    if (!isClosed) signals.fail();
    isClosed = true;
  } finally {
    await backend?.close();
    port.close();
    start.commands.close();
  }
}

async function load<Opening>(
  backend: Backend,
  { port, start }: RankThreadOptions<Opening>,
  tell: (message: FromLoadingRank) => void,
): Promise<Model> {
  const builder = familyOf(start.config.modelType).buildModel(start.config, backend);
  let prepared: CachelessModel | null = null;
  for await (const [received] of on(port, 'message')) {
    // The leader sends nothing else.
    const message = received as ToLoadingRank;
    if (message.kind === 'tensor') {
      builder.accept(message.tensor);
      tell({ kind: 'taken', bytes: message.tensor.bytes.length });
    } else if (message.kind === 'prepare') {
      prepared = builder.finish(start.options);
      tell({ kind: 'prepared', memory: backend.memory.use(), blockBytes: prepared.blockBytes });
    } else {
      assert(prepared !== null, 'caches come after the activations');
      const model = prepared.withCache(message.blocks);
      backend.memory.freeze(() => warmUp(model));
      tell({ kind: 'serving' });
      return model;
    }
  }
  throw new Error('the leader has gone');
}

function serve(model: Model, start: RankStart<unknown>, signals: RankSignals): void {
  const answersAll = start.rank % start.tensorParallel === 0;
  for (;;) {
    signals.waitForCommand();
    const received = receiveMessageOnPort(start.commands);
    assert(received !== undefined, 'a command is at the port before it is told');
    // The leader sends nothing else.
    const command = received.message as RankCommand;
    const answer = command.kind === 'close' ? null : run(model, command, answersAll);
    if (answer !== null) start.commands.postMessage(answer, []);
    signals.answered();
    if (command.kind === 'close') return;
  }
}

/** Only the first rank of a group answers: the others have the same. */
function run(
  model: Model,
  command: Exclude<RankCommand, { kind: 'close' }>,
  answers: boolean,
): RankAnswer | null {
  switch (command.kind) {
    case 'forward': {
      const observed = { hidden: [], selections: [] };
      model.forward(command.batch, answers ? observerOf(command.observes, observed) : {});
      return answers ? { kind: 'computed', observed } : null;
    }
    case 'logits': {
      const values = model.logits(command.rows);
      return answers ? { kind: 'logits', values } : null;
    }
    case 'sample': {
      if (answers) return { kind: 'tokens', tokens: model.sample(command.rows, command.draws) };
      // Its part of the logits is wanted, a second draw is not.
      model.logits(command.rows);
      return null;
    }
  }
}

function observerOf(
  observes: Observes,
  observed: { hidden: Observed['hidden'][number][]; selections: Observed['selections'][number][] },
): ForwardObserver {
  return {
    ...(observes.hidden && {
      hidden: (stage, states) => void observed.hidden.push({ stage, states }),
    }),
    ...(observes.selection && {
      selection: (layer, rows) =>
        void observed.selections.push({ layer, rows: rows.map((row) => row.slice()) }),
    }),
  };
}
