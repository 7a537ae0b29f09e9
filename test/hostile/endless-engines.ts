/** Engines whose answers go on for ever: the edge lets go, and its memory stays in bounds. */
import type { Attack } from './attack.ts';
import {
  content,
  event,
  eventStream,
  growthMiBMax,
  isSettled,
  peakGrowthMiB,
  withEngine,
  writeForever,
} from './hostile-engine.ts';

export function endlessAttacks(): Attack[] {
  const text = 'x'.repeat(8_192);
  const endless: Readonly<Record<string, string | Buffer>> = {
    content: content(text).repeat(8),
    reasoning: event({ choices: [{ index: 0, delta: { reasoning_content: text } }] }).repeat(8),
    'tool calls': event({
      choices: [
        {
          index: 0,
          delta: { tool_calls: [{ index: 0, id: 'a', function: { name: 'f', arguments: text } }] },
        },
      ],
    }).repeat(8),
    'one line': Buffer.alloc(65_536, 'x'),
    'empty lines': Buffer.alloc(65_536, '\n'),
    comments: ': keep-alive\n\n'.repeat(5_000),
    'events of nothing': event({ choices: [] }).repeat(2_000),
    logprobs: event({
      choices: [{ index: 0, delta: { content: '' }, logprobs: { content: Array(1_000).fill(0) } }],
    }).repeat(8),
  };
  return Object.entries(endless).flatMap(([name, piece]) =>
    [true, false].map((streamed): Attack => ({
      name: `${name} without end, ${streamed ? 'streamed' : 'whole'}`,
      secondsMax: 60,
      run: (system) =>
        withEngine(
          system,
          {
            answer(res) {
              res.writeHead(200, eventStream);
              writeForever(res, piece);
            },
          },
          async (engine) => {
            let end = '';
            const growth = await peakGrowthMiB(system, async () => {
              end = await lastOf(await engine.ask({ stream: streamed }));
            });
            if (growth > growthMiBMax) return { broken: `the edge grew by ${growth} MiB` };
            if (!/worker_failed|overloaded|no_worker/.test(end))
              return { broken: `it ended in ${end}` };
            return isSettled(system, engine.caller);
          },
        ),
    })),
  );
}

/** The end of an answer, whose beginning nobody keeps. */
async function lastOf(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let last = '';
  for await (const piece of response.body ?? []) {
    last = (last + decoder.decode(piece, { stream: true })).slice(-400);
  }
  return last;
}

/** The client leaves, and the worker's journal is asked what the request used. */
