/**
 * The engine's thread: opens a model, then takes requests between steps and computes steps while
 * there is work. An engine that fails says why and ends; it never carries on from a broken state.
 */
import { randomInt } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import type { Model, ModelGroups } from '../model/model.ts';
import type { FromEngine, LoadingProgress, StepEvents, ToEngine } from './engine-messages.ts';
import { EngineGroups } from './engine-groups.ts';
import { EngineLoop } from './engine.ts';
import type { EngineLimits } from './engine.ts';
import type { TokenText } from './output.ts';
import type { EngineDescription, EngineEvent } from './request.ts';

/** A model that is ready to serve, as the thread's entry module composes it. */
export interface OpenedModel {
  readonly model: Model | ModelGroups;
  readonly tokenText: TokenText;
  readonly endTokens: readonly number[];
  readonly description: EngineDescription;
  /** Rejects if the model fails while nothing is asked of it. */
  readonly failed?: Promise<never>;
  /** Ends the backend's threads and frees its memory. */
  close(): Promise<void>;
}

export interface ThreadOptions {
  /** `parentPort` of the worker. */
  readonly port: MessagePort;
  /** Reports progress as often as it likes. An error it throws is what the starter is told. */
  open(onProgress: (progress: LoadingProgress) => void): Promise<OpenedModel>;
}

/** Runs until the handle closes the engine, or the engine fails. Rejects only if closing fails. */
export async function runEngineThread({ port, open }: ThreadOptions): Promise<void> {
  const send = (message: FromEngine): void => port.postMessage(message);
  let opened: OpenedModel | null = null;
  try {
    opened = await open((progress) => send({ kind: 'loading', progress }));
    await serve(opened, port, send);
  } catch (error) {
    send({ kind: 'failed', message: reasonOf(error) });
  } finally {
    await opened?.close();
    port.close();
  }
}

async function serve(
  opened: OpenedModel,
  port: MessagePort,
  send: (message: FromEngine) => void,
): Promise<void> {
  const { description } = opened;
  const engine = createEngine(opened);
  const inbox = new Inbox(port);
  const eventsPort = await inbox.eventsPort;
  const report = (events: readonly EngineEvent[]): void => {
    const message: StepEvents = { events, load: engine.load() };
    eventsPort.postMessage(message, []);
    send({ kind: 'events' });
  };

  send({ kind: 'ready', description, load: engine.load() });
  const failing = opened.failed === undefined ? [] : [opened.failed];
  let deadlineMs = Infinity;
  while (deadlineMs === Infinity || (!engine.isIdle && performance.now() < deadlineMs)) {
    if (engine.isIdle) await Promise.race([inbox.nextMessage(), ...failing]);
    // One turn of the event loop a step: it brings what arrived, and failures of the backend's
    // own threads. A message sent before this point is in the inbox after it.
    else await nextTurn();
    const events: EngineEvent[] = [];
    for (const message of inbox.take()) {
      if (message.kind === 'submit') events.push(...engine.submit(...message.requests));
      else if (message.kind === 'abort')
        events.push(...message.ids.flatMap((id) => engine.abort(id)));
      else deadlineMs = performance.now() + message.graceMs;
    }
    if (!engine.isIdle) events.push(...engine.step());
    report(events);
  }
  report(engine.abortAll());
}

/** Messages that came and were not taken. One listener for good, so that none is ever lost. */
class Inbox {
  readonly eventsPort: Promise<MessagePort>;
  #messages: Exclude<ToEngine, { kind: 'open' }>[] = [];
  #wake: () => void = () => {};

  constructor(port: MessagePort) {
    const { promise, resolve } = Promise.withResolvers<MessagePort>();
    this.eventsPort = promise;
    port.on('message', (message: ToEngine) => {
      if (message.kind === 'open') return resolve(message.events);
      this.#messages.push(message);
      this.#wake();
    });
  }

  take(): readonly Exclude<ToEngine, { kind: 'open' }>[] {
    const messages = this.#messages;
    this.#messages = [];
    return messages;
  }

  async nextMessage(): Promise<void> {
    if (this.#messages.length > 0) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}

function createEngine({ model, description, ...opened }: OpenedModel): EngineLoop | EngineGroups {
  const services = {
    ...opened,
    drawSeed: () => randomInt(2 ** 47),
    nowMs: () => performance.now(),
  };
  if (!('groups' in model)) return new EngineLoop({ ...services, model }, limitsOf(description, 1));
  return new EngineGroups({ ...services, model }, limitsOf(description, model.groups.length));
}

/** The limits of each group, which has a part of the sequences and a whole step. */
function limitsOf({ plan }: EngineDescription, groups: number): EngineLimits {
  const { stepTokensMax, mixedTokensMax, waitingMax } = plan;
  const sequencesMax = Math.ceil(plan.sequencesMax / groups);
  return { stepTokensMax, mixedTokensMax, sequencesMax, waitingMax };
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
