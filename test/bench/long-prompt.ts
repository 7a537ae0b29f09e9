/**
 * Reads the long prompt of the tiny model's expected answers on the cpu backend, says what it took,
 * and compares with the figures that the training code computed: `npm run bench -- long-prompt`.
 * With a number of tokens it reads so many and compares nothing.
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { score, scoreBlocks } from '../../gpu-worker/model/score.ts';
import { maxDifference } from '../support/worker/golden.ts';
import { openForTest } from '../support/worker/model-harness.ts';

interface ExpectedAnswer {
  readonly input_ids: number[];
  readonly mean_nll: number;
  readonly last_logits: number[];
  readonly greedy: number[];
}

/**
 * Float32 on both sides; at the edge of the top 256 near ties fall either way, which moves logits
 * by up to 1.5e-3 at 2,564 tokens, and more where there are more of them.
 */
const nllTolerance = 1e-3;
const logitTolerance = 0.1;

const directory = fileURLToPath(new URL('../../gpu-worker/models/tiny/', import.meta.url));
// The file is ours.
const [expected] = JSON.parse(
  readFileSync(`${directory}expected-long.json`, 'utf8'),
) as ExpectedAnswer[];
assert(expected !== undefined, 'expected-long.json holds an answer');
const wanted = process.argv[2];
const ids = expected.input_ids.slice(0, wanted === undefined ? undefined : Number(wanted));
const greedyTokens = expected.greedy.length;

const opened = await openForTest(directory, {
  rowsMax: 512,
  threads: availableParallelism(),
  blocks: scoreBlocks(ids.length, greedyTokens),
});
const startedMs = performance.now();
const startedCpu = process.cpuUsage();
const scores = score(opened.model, ids, { positions: [ids.length - 1], greedyTokens });
const cpu = process.cpuUsage(startedCpu);
const seconds = (performance.now() - startedMs) / 1000;
const cpuSeconds = (cpu.user + cpu.system) / 1e6;
await opened.close();
console.log(
  `${ids.length} tokens, logits of each: ${seconds.toFixed(1)} s, ` +
    `${cpuSeconds.toFixed(1)} s of processor time on ${availableParallelism()} threads; ` +
    `load average ${loadavg()[0]?.toFixed(1)}`,
);
if (wanted === undefined) {
  const nll = Math.abs((scores.meanNll ?? 0) - expected.mean_nll);
  const logits = maxDifference(scores.logits[ids.length - 1] ?? [], expected.last_logits);
  console.log(`differs by ${nll.toExponential(1)} nats and ${logits.toExponential(1)} in logits`);
  assert.deepEqual(scores.greedy, expected.greedy, 'the answer is another one');
  assert(nll < nllTolerance && logits < logitTolerance, 'the figures are others');
}
