/**
 * Entry module of a text thread over the tiny model's tokenizer, for tests of the threads and their
 * pool.
 */
import { strict as assert } from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { createOutputGrammars } from '../../../gpu-worker/http/request/output-grammar.ts';
import { runTextThread } from '../../../gpu-worker/http/text/text-thread.ts';
import { openText } from '../../../gpu-worker/open-text.ts';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';

const tiny = fileURLToPath(new URL('../../../gpu-worker/models/tiny', import.meta.url));

export interface TextEntryOptions {
  readonly jobMs: number;
  /** Used in place of the tiny model's own template. */
  readonly template?: string;
  readonly opens?: boolean;
}

assert(parentPort !== null, 'this module is the entry of a thread');
// The test that starts this thread passes exactly this type.
const options = workerData as TextEntryOptions;

await runTextThread({
  port: parentPort,
  jobMs: options.jobMs,
  async open(pause) {
    if (options.opens === false) throw new Error('the tokenizer is broken');
    const text = await openText(tiny, { pause });
    const template = options.template ?? null;
    const chatFormat =
      template === null
        ? text.chatFormat
        : openChatFormat({
            tokenizerConfig: { chat_template: template },
            tokenizer: text.tokenizer,
          });
    const outputGrammars = createOutputGrammars(text, pause);
    return { ...text, id: 'tiny', chatFormat, outputGrammars };
  },
});
