/**
 * An engine in the test's own thread: the real loop over the hash model, whose logits are noise.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { EngineLoop } from '../../../gpu-worker/engine/engine.ts';
import type { Engine, EngineEvent } from '../../../gpu-worker/engine/request.ts';
import type { Tokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { createHashModel } from './hash-model.ts';
import { scriptedEngine } from './scripted-engine.ts';

export function noiseEngine(tokenizer: Tokenizer, vocabSize: number): Engine {
  const model = createHashModel({
    vocabSize,
    contextLength: 4096,
    blocks: 256,
    rowsMax: 1024,
    logitRowsMax: 4,
  });
  const loop = new EngineLoop(
    {
      model,
      tokenText: tokenizer,
      endTokens: tokenizer.endTokens,
      drawSeed: () => 12_345,
      nowMs: () => performance.now(),
    },
    { stepTokensMax: 1024, sequencesMax: 8, waitingMax: 16 },
  );
  const nothing = scriptedEngine({ answer: () => [] }, { contextLength: 4096, vocabSize });
  return {
    ...nothing,
    load: () => loop.load(),
    /** Serves one call at a time. */
    async *submit(requests, { signal, onUsage }) {
      const events: EngineEvent[] = [...loop.submit(...requests)];
      let open = requests.length;
      for (;;) {
        for (const event of events.splice(0)) {
          if (event.kind === 'end') open--;
          onUsage?.(event.id, event.usage);
          yield event;
        }
        if (open === 0) return;
        await nextTurn();
        events.push(...(signal.aborted ? loop.abortAll() : loop.step()));
      }
    },
  };
}
