/**
 * Models of a layer or two with the published heads, latents and indexer and little else: every
 * kernel that is made for those widths, on steps small enough for compute-sanitizer
 * (test/gpu/run.ts).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openCudaBackend } from '../../../../../gpu-worker/backend/cuda/cuda-backend.ts';
import type {
  LatentFormat,
  NumericsName,
} from '../../../../../gpu-worker/model/mla-moe/numerics.ts';
import { openModel } from '../../../../../gpu-worker/open-model.ts';
import { test } from '../../../../gpu/check.ts';
import { randomConfig } from '../../../../support/weights/checkpoint-config.ts';
import type { CheckpointConfig } from '../../../../support/weights/checkpoint-config.ts';
import { argmax, calcDiff } from '../../../../support/worker/golden.ts';
import {
  drawSchedule,
  openForTest,
  runSchedule,
} from '../../../../support/worker/model-harness.ts';
import type { Step } from '../../../../support/worker/model-harness.ts';
import { writeRandomCheckpoint } from '../../../../support/weights/random-checkpoint.ts';
import { seededRandom } from '../../../../support/random.ts';
import { isSmall, isWanted, traced } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const rowsMax = 160;
const config = {
  ...randomConfig('V3.2 with everything', seed),
  vocab_size: 512,
  hidden_size: 256,
  intermediate_size: 256,
  moe_intermediate_size: 128,
  num_hidden_layers: 1,
  num_attention_heads: 64,
  num_key_value_heads: 64,
  n_routed_experts: 8,
  num_experts_per_tok: 2,
  n_group: 2,
  topk_group: 1,
  kv_lora_rank: 512,
  q_lora_rank: 128,
  qk_rope_head_dim: 64,
  qk_nope_head_dim: 128,
  v_head_dim: 128,
  index_topk: 128,
  index_head_dim: 128,
  index_n_heads: 64,
  first_k_dense_replace: 0,
  max_position_embeddings: 512,
};

/** GLM-5's heads, and a second layer that shares the first one's selection. */
const glm: CheckpointConfig = {
  ...config,
  model_type: 'glm_moe_dsa',
  architectures: ['GlmMoeDsaForCausalLM'],
  rope_scaling: null,
  num_hidden_layers: 2,
  n_group: 1,
  qk_nope_head_dim: 192,
  v_head_dim: 256,
  index_n_heads: 32,
  indexer_types: ['full', 'shared'],
};

/**
 * Instead of V3.2's where kernels are made for no width, for compute-sanitizer pays for every
 * access.
 */
const narrow = {
  num_attention_heads: 4,
  num_key_value_heads: 4,
  index_n_heads: 4,
  kv_lora_rank: 128,
  qk_nope_head_dim: 32,
  v_head_dim: 32,
};

/**
 * Many rows that select all, many rows that choose and mask the rest, a step of so many absorbed
 * rows that they are not split, one of so many of a sequence that its entries are dequantized, then
 * a token each.
 */
const schedule: readonly Step[] = [
  [{ sequence: 0, count: 128 }],
  [{ sequence: 1, count: 140 }],
  [
    { sequence: 0, count: 1 },
    { sequence: 1, count: 40 },
  ],
  [{ sequence: 0, count: 70 }],
  ...Array.from({ length: 3 }, () => [
    { sequence: 0, count: 1 },
    { sequence: 1, count: 1 },
  ]),
];
const random = seededRandom(seed);
const sequences = [202, 183].map((length) =>
  Array.from({ length }, () => random.integer(0, config.vocab_size - 1)),
);

const folder = mkdtempSync(join(tmpdir(), 'sift-widths-'));
const written = { seed, shards: 1 } as const;
/** 128 heads, whose absorbed attention over fp8 entries takes clusters of two blocks. */
const published = { ...config, num_attention_heads: 128, num_key_value_heads: 128 };
const fp8Published = writeRandomCheckpoint(join(folder, 'published'), published, {
  ...written,
  dtype: 'F8_E4M3',
});
const fp8 = writeRandomCheckpoint(join(folder, 'fp8'), config, { ...written, dtype: 'F8_E4M3' });
const fp8Glm = writeRandomCheckpoint(join(folder, 'glm'), glm, { ...written, dtype: 'F8_E4M3' });
const bf16 = writeRandomCheckpoint(join(folder, 'bf16'), config, { ...written, dtype: 'BF16' });
const plain = isSmall
  ? writeRandomCheckpoint(
      join(folder, 'plain'),
      { ...config, ...narrow },
      { ...written, dtype: 'F8_E4M3' },
    )
  : fp8;

for (const { directory, what, numerics, attention, bound, stage } of [
  {
    directory: fp8Published,
    what: 'fp8 throughout, 128 heads',
    numerics: 'fp8',
    attention: 'sparse',
    bound: 2e-3,
    stage: 1,
  },
  {
    directory: fp8Glm,
    what: 'fp8 throughout, GLM',
    numerics: 'fp8',
    attention: 'sparse',
    bound: 2e-3,
    stage: 2,
  },
  {
    directory: fp8,
    what: 'fp8, dense, 64 heads',
    numerics: 'fp8',
    attention: 'dense',
    bound: 2e-3,
    stage: 1,
  },
  {
    directory: bf16,
    what: 'bf16 weights and latents',
    numerics: 'fp8',
    attention: 'sparse',
    bound: 2e-3,
    stage: 1,
  },
  { directory: plain, what: 'f32', numerics: 'f32', attention: 'sparse', bound: 1e-7, stage: 1 },
] as const) {
  if (!isWanted(what)) continue;
  await test(`${what}: the states of the cpu backend`, async () => {
    const latents = directory === bf16 ? ({ latents: 'bf16' } as const) : {};
    const common = { absorb: 'decode', rowsMax, blocks: 12 } as const;
    const options = { numerics, attention, ...latents, ...common };
    const cpu = await openForTest(directory, { ...options, threads: 4 });
    const gpu = await openOnGpu(directory, options);
    try {
      const expected = timed('cpu', () => runSchedule(cpu, sequences, { schedule }));
      const actual = timed('gpu', () => runSchedule(gpu, sequences, { schedule }));
      expected.forEach(({ hidden }, sequence) => {
        const diffs = (hidden[stage] ?? []).map((row, position) =>
          calcDiff(actual[sequence]?.hidden[stage]?.[position] ?? [], row),
        );
        const middle = diffs.toSorted((x, y) => x - y)[Math.floor(diffs.length / 2)];
        console.log(`     sequence ${sequence}: median calc_diff ${middle?.toExponential(2)}`);
        if (!(middle !== undefined && middle < bound)) throw new Error(`calc_diff ${middle}`);
        if (!diffs.every((diff) => diff < 0.5)) throw new Error('a row is far off');
      });

      // Without an observer steps run as graphs, and the tokens are drawn where the logits are.
      for (let round = 0; round < (isSmall ? 1 : 3); round++) {
        const draw = () => drawSchedule(gpu.model, sequences, { schedule });
        const tokens = timed(`gpu, drawing, round ${round}`, draw);
        const wanted = actual.map(({ logits }) => logits.map((row) => argmax(row)));
        if (tokens.join() !== wanted.join()) throw new Error(`round ${round} draws other tokens`);
      }
    } finally {
      await gpu.close();
      await cpu.close();
    }
  });
}
rmSync(folder, { recursive: true });

function timed<T>(what: string, run: () => T): T {
  const start = performance.now();
  const result = run();
  console.log(`     ${what}: ${Math.round(performance.now() - start)} ms`);
  return result;
}

async function openOnGpu(
  location: string,
  options: {
    numerics: NumericsName;
    latents?: LatentFormat;
    attention: 'sparse' | 'dense';
    absorb: 'decode';
    blocks: number;
  },
) {
  const {
    model,
    config: parsed,
    backend,
  } = await openModel({
    location,
    compute: options,
    limits: { rowsMax, logitRowsMax: rowsMax },
    openBackend: (numerics) =>
      openCudaBackend({ numerics, rowsMax, traced, absorb: options.absorb }),
    blocks: options.blocks,
  });
  return { model, config: parsed, close: () => backend.close() };
}
