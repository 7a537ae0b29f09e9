/** The worker's HTTP side with a scripted engine behind it and the tiny model's real tokenizer. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { createApp } from '../../../gpu-worker/http/app.ts';
import { systemClock } from '../../../gpu-worker/http/clock.ts';
import { createLifecycle } from '../../../gpu-worker/http/lifecycle.ts';
import type { ServedModel } from '../../../gpu-worker/http/lifecycle.ts';
import { createOutputGrammars } from '../../../gpu-worker/http/request/output-grammar.ts';
import { plainSampling } from '../../../gpu-worker/http/request/sampling-defaults.ts';
import { createMetrics } from '../../../gpu-worker/http/metrics.ts';
import { defaultHttpSettings } from '../../../gpu-worker/http/worker-services.ts';
import type { HttpSettings, WorkerServices } from '../../../gpu-worker/http/worker-services.ts';
import type { TextModel } from '../../../gpu-worker/http/text/text-model.ts';
import { openUsageJournal } from '../../../gpu-worker/http/journal/usage-journal.ts';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import type { JournalOptions } from '../../../gpu-worker/http/journal/usage-journal.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { scriptedEngine, tinyDescription } from './scripted-engine.ts';
import type { Script, ScriptedEngine } from './scripted-engine.ts';
import { ownThreadReader } from './text-reader.ts';

const tiny = new URL('../../../gpu-worker/models/tiny/', import.meta.url);

export interface HttpWorker extends AsyncDisposable {
  readonly app: ReturnType<typeof createApp>;
  readonly services: WorkerServices;
  readonly engine: ScriptedEngine;
  readonly model: ServedModel;
  readonly text: Omit<TextModel, 'description'>;
  /** Lines of the log so far. */
  readonly log: Record<string, unknown>[];
  readonly journalDirectory: string;
}

export async function httpWorker(options: {
  script: Script;
  settings?: Partial<HttpSettings>;
  tracing?: WorkerServices['tracing'];
  contextLength?: number;
  vocabSize?: number;
  /** Waiting requests in the engine's plan. */
  waitingMax?: number;
  /** Used in place of the tiny model's own template. */
  template?: string;
  model?: Partial<ServedModel & TextModel>;
  /** The journal's directory is made there. */
  folder?: string;
  /** In place of what brings the journal onto the disk. */
  datasync?: JournalOptions['datasync'];
}): Promise<HttpWorker> {
  const tokenizerConfig = {
    ...(await readJson('tokenizer_config.json')),
    ...(options.template !== undefined && { chat_template: options.template }),
  };
  const tokenizer = openTokenizer({
    tokenizerJson: await readJson('tokenizer.json'),
    tokenizerConfig,
  });
  const { contextLength, vocabSize } = options;
  const { waitingMax } = options;
  const engine = scriptedEngine(
    options.script,
    {
      ...(waitingMax !== undefined && { plan: { ...tinyDescription.plan, waitingMax } }),
      ...(contextLength !== undefined && { contextLength }),
      ...(vocabSize !== undefined && { vocabSize }),
    },
    tokenizer.tokenBytes,
  );
  const opened = {
    tokenizer,
    chatFormat: openChatFormat({ tokenizerConfig, tokenizer }),
    ...options.model,
  };
  const text = {
    id: 'tiny',
    samplingDefaults: plainSampling,
    outputGrammars: createOutputGrammars(opened),
    ...opened,
  };
  const model: ServedModel = {
    id: 'tiny',
    ownedBy: 'sift',
    created: 1_700_000_000,
    tokenizerId: 'tiny-tokenizer',
    engine,
    samplingDefaults: plainSampling,
    text: ownThreadReader(text),
    ...options.model,
  };

  const log: Record<string, unknown>[] = [];
  const logger = pino({ level: 'debug' }, { write: (line) => log.push(JSON.parse(line)) });
  const journalDirectory = await mkdtemp(join(options.folder ?? tmpdir(), 'sift-journal-'));
  const clock = systemClock;
  const { datasync } = options;
  const journal = await openUsageJournal({
    directory: journalDirectory,
    clock,
    logger,
    ...(datasync && { datasync }),
  });
  const lifecycle = createLifecycle(() => journal.problem());
  lifecycle.serve(model);
  const metrics = createMetrics({
    lifecycle,
    version: '0.0.0',
    journalErrors: () => journal.errors(),
  });
  const settings = { ...defaultHttpSettings, ...options.settings };
  const warnings = () => [];
  const services: WorkerServices = {
    lifecycle,
    journal,
    metrics,
    logger,
    clock,
    tracing: options.tracing ?? null,
    settings,
    warnings,
  };
  return {
    app: createApp(services),
    services,
    engine,
    model,
    text,
    log,
    journalDirectory,
    async [Symbol.asyncDispose]() {
      await journal.close();
      await rm(journalDirectory, { recursive: true });
    },
  };
}

async function readJson(name: string): Promise<object> {
  return JSON.parse(await readFile(new URL(name, tiny), 'utf8'));
}

/** DeepSeek-V3.1's way of opening an answer, with the tiny model's tokens. */
export const thinkingTemplate =
  '{{ bos_token }}{% for message in messages %}' +
  "{% if message.role == 'user' %}{{ '<|user|>' + message.content }}" +
  "{% elif message.role == 'assistant' %}" +
  "{{ '<|assistant|></think>' + message.content + eos_token }}{% endif %}" +
  '{% endfor %}{% if add_generation_prompt %}' +
  "{{ '<|assistant|>' + ('<think>' if thinking else '</think>') }}{% endif %}";

/** A script that answers each choice with these pieces of text, one token each, ids from 100 up. */
export function answering(...pieces: string[]): Script {
  return {
    answer: (_, choice) =>
      pieces.map((text, index) => ({
        token: 100 + index,
        text: choice === 0 ? text : `${text}${choice}`,
      })),
  };
}

/** The `data:` events of a stream, parsed; comments are kept as `{ comment }`. */
export function parseEvents(text: string): unknown[] {
  return text
    .split('\n\n')
    .filter((block) => block !== '')
    .map((block) => {
      if (block.startsWith(': ')) return { comment: block.slice(2) };
      const payload = block.replace(/^data: /, '');
      return payload === '[DONE]' ? payload : JSON.parse(payload);
    });
}
