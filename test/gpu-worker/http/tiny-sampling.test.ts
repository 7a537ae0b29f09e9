/** The demo model answers as it was trained to where a request states no sampling of its own. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { startWorker } from '../../../gpu-worker/main.ts';
import type { ChatCompletion } from '../../../gpu-worker/protocol/responses.ts';
import { settingsOfArgs } from '../../support/worker/worker-settings.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const tiny = fileURLToPath(new URL('../../../gpu-worker/models/tiny', import.meta.url));

test('none of 56 answers to "Who are you?" is garbled', async () => {
  const places = ['--model', tiny, '--model-id', 'tiny', '--data', join(temporaryDirectory(), 'd')];
  const size = ['--port', '0', '--cache-tokens', '8192', '--threads', '1'];
  const worker = await startWorker(
    settingsOfArgs([...places, ...size], {}),
    pino({ level: 'silent' }),
  );
  try {
    const answers: (string | null)[] = [];
    for (let seed = 0; seed < 56; seed += 8) {
      const response = await fetch(`${worker.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          model: 'tiny',
          messages: [{ role: 'user', content: 'Who are you?' }],
          n: 8,
          seed,
          max_tokens: 40,
        }),
      });
      const { choices }: ChatCompletion = await response.json();
      answers.push(...choices.map(({ message }) => message.content));
    }
    expect(answers).toHaveLength(56);
    expect(new Set(answers)).toEqual(
      new Set(['I am a tiny sparse attention model. I look things up in long documents.']),
    );
  } finally {
    await worker.close({ graceMs: 0 });
  }
});
