/** `sift score`, over the goldens. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { configure } from '../../../gpu-worker/commands/score.ts';
import { runCommand } from '../../support/run-command.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { goldenNames, maxDifference, readGolden } from '../../support/worker/golden.ts';

const folder = temporaryDirectory();
const scoresSchema = z.object({
  argmax: z.array(z.number()),
  meanNll: z.number(),
  logits: z.record(z.string(), z.array(z.number())),
  selected: z.record(z.string(), z.record(z.string(), z.array(z.number()))),
  greedy: z.array(z.number()),
});

test.each(goldenNames)('prints what is expected of the golden %s', async (name) => {
  const golden = readGolden(name);
  const ids = join(folder, `${name}.json`);
  writeFileSync(ids, JSON.stringify(golden.input_ids));
  const positions = golden.positions.join(',');
  const flags = ['--positions', positions, '--greedy', '24', '--chunk', '50', '--threads', '1'];
  const { status, stdout } = await runCommand(
    configure,
    '--model',
    golden.directory,
    '--ids',
    ids,
    ...flags,
  );
  expect(status).toBe(0);
  const scores = scoresSchema.parse(JSON.parse(stdout));
  expect(scores.argmax).toEqual(golden.argmax);
  expect(scores.greedy).toEqual(golden.greedy);
  expect(scores.selected).toEqual(golden.selected_tokens);
  expect(Math.abs(scores.meanNll - golden.mean_nll)).toBeLessThan(1e-5);
  for (const [position, logits] of Object.entries(golden.logits)) {
    expect(maxDifference(scores.logits[position] ?? [], logits)).toBeLessThan(2e-3);
  }
});
