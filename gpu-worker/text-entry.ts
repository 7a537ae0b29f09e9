/**
 * The entry of a worker's text threads: each opens the tokenizer, the chat format and the rest.
 */
import { strict as assert } from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';
import { createOutputGrammars } from './http/request/output-grammar.ts';
import { runTextThread } from './http/text/text-thread.ts';
import { openText } from './open-text.ts';
import { sourceSettings } from './settings.ts';
import type { WorkerSettings } from './settings.ts';

assert(parentPort !== null, 'this module is the entry of a thread');
// startTextPool in main.ts is the only one to start a thread on this file.
const settings = workerData as WorkerSettings;
await runTextThread({
  port: parentPort,
  jobMs: settings.textSeconds * 1000,
  async open(pause) {
    const text = await openText(settings.model, {
      weights: sourceSettings(settings),
      chatFormat: settings.chatFormat,
      pause,
    });
    return { ...text, id: settings.modelId, outputGrammars: createOutputGrammars(text, pause) };
  },
});
