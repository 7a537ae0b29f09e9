/** The host side of the CUDA backend over a device that computes nothing. */
import { describe, expect, test } from 'vitest';
import { CudaBackend } from '../../../../gpu-worker/backend/cuda/cuda-backend.ts';
import { dtypeCode } from '../../../../gpu-worker/backend/cuda/handles.ts';
import { CudaStep } from '../../../../gpu-worker/backend/cuda/step.ts';
import {
  formatKernelChoices,
  KernelChoices,
} from '../../../../gpu-worker/backend/kernel-choices.ts';
import type { KernelChoice } from '../../../../gpu-worker/backend/kernel-choices.ts';
import { parseModelConfig } from '../../../../gpu-worker/model/families.ts';
import { prepareModel } from '../../../../gpu-worker/model/mla-moe/forward.ts';
import { chooseNumerics } from '../../../../gpu-worker/model/mla-moe/numerics.ts';
import type { NumericsName } from '../../../../gpu-worker/model/mla-moe/numerics.ts';
import { WeightBuilder } from '../../../../gpu-worker/model/mla-moe/weights.ts';
import { warmUp } from '../../../../gpu-worker/model/warm-up.ts';
import type { TensorSpec } from '../../../../gpu-worker/weights/tensor-spec.ts';
import { createRecordingDevice } from '../../../support/gpu/recording-device.ts';
import { randomConfig } from '../../../support/weights/checkpoint-config.ts';
import type { ModelKind } from '../../../support/weights/checkpoint-config.ts';

const rowsMax = 600;
/** The published model's heads over little else. */
const publishedHeads = {
  num_attention_heads: 128,
  num_key_value_heads: 128,
  q_lora_rank: 384,
  kv_lora_rank: 512,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  index_n_heads: 64,
  index_head_dim: 128,
  index_topk: 256,
  hidden_size: 512,
  moe_intermediate_size: 256,
  max_position_embeddings: 2048,
};
const isFp8 = {
  quantization_config: {
    quant_method: 'fp8',
    fmt: 'e4m3',
    activation_scheme: 'dynamic',
    weight_block_size: [128, 128],
    scale_fmt: 'ue8m0',
  },
};

interface WarmedUp {
  /** Names of all kernels. */
  readonly launched: Set<string>;
  /** The kernels of the ops that have a choice. */
  readonly choices: readonly KernelChoice[];
}

function launchedBy(...args: Parameters<typeof warmedUp>): Set<string> {
  return warmedUp(...args).launched;
}

/** Warms a model up, with weights that nobody reads. */
function warmedUp(
  changes: Readonly<Record<string, unknown>>,
  options: { numerics: NumericsName; useTensorCores?: boolean; kind?: ModelKind },
): WarmedUp {
  const config = parseModelConfig({
    ...randomConfig(options.kind ?? 'V3.2 with everything', 5),
    ...changes,
  });
  const { device, launched } = createRecordingDevice();
  const numerics = chooseNumerics(options.numerics, config);
  const bf16 = numerics.activations === 'bf16';
  const context = {
    device,
    numerics,
    step: new CudaStep(device, rowsMax),
    activation: bf16 ? dtypeCode.BF16 : dtypeCode.F32,
    activationBytes: bf16 ? 2 : 4,
    defines: { kBf16: bf16 ? 1 : 0 },
    powerOfTwo: 1,
    library: null,
    useTensorCores: options.useTensorCores ?? true,
    kernels: new KernelChoices(),
  } as const;
  const backend = new CudaBackend(context, { expandedTokens: null });
  const builder = new WeightBuilder(config, backend);
  const isQuantized = config.quantization !== null;
  for (const spec of builder.specs) {
    if (spec.use === 'needed') builder.accept(zerosOf(spec, isQuantized));
  }
  const limits = { rowsMax, logitRowsMax: 16 };
  const modelOptions = { attention: 'sparse', limits } as const;
  warmUp(prepareModel(config, builder.finish(), backend, modelOptions).withCache(40));
  return { launched, choices: backend.kernels.list() };
}

function zerosOf({ name, shape, role }: TensorSpec, isQuantized: boolean) {
  const count = shape.reduce((product, size) => product * size, 1);
  if ((role === 'matrix' || role === 'kv-up') && isQuantized) {
    const blocks = shape.reduce((product, size) => product * Math.ceil(size / 128), 1);
    const scales = new Float32Array(blocks);
    return { name, shape, dtype: 'F8_E4M3', bytes: new Uint8Array(count), scales } as const;
  }
  return { name, shape, dtype: 'F32', bytes: new Uint8Array(count * 4), scales: null } as const;
}

describe('every launch gives its kernel all arguments by their names', () => {
  test('at the published heads in fp8, on tensor cores', () => {
    const launched = launchedBy({ ...publishedHeads, ...isFp8 }, { numerics: 'fp8' });
    const expected = ['sm90_gemm', 'sm90_gemm_few', 'sm90_dense_mha', 'selection_bits'];
    for (const name of [...expected, 'sm90_sparse_mla', 'combine_splits', 'sm90_index_scores']) {
      expect(launched).toContain(name);
    }
  });

  test.each([64, 32, 16, 8])("at GLM's dimensions and %i heads, on tensor cores", (heads) => {
    const launched = launchedBy(
      {
        ...publishedHeads,
        ...isFp8,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        qk_nope_head_dim: 192,
        v_head_dim: 256,
        index_n_heads: 32,
      },
      { numerics: 'fp8' },
    );
    for (const name of ['sm90_dense_mha', 'sm90_sparse_mla', 'sm90_index_scores']) {
      expect(launched).toContain(name);
    }
    for (const name of ['attend', 'attend_expanded', 'index_scores']) {
      expect(launched).not.toContain(name);
    }
  });

  test.each(['f32', 'fp8'] as const)('by the plain kernels in %s', (numerics) => {
    const launched = launchedBy({}, { numerics, useTensorCores: false });
    for (const name of ['gemm_f32', 'gemm_few_f32', 'attend', 'index_scores', 'top_k', 'sample']) {
      expect(launched).toContain(name);
    }
    expect([...launched].filter((name) => name.startsWith('sm90'))).toEqual([]);
  });
});

describe('a start tells which kernel each op takes', () => {
  const glm = {
    ...publishedHeads,
    ...isFp8,
    num_attention_heads: 64,
    num_key_value_heads: 64,
    qk_nope_head_dim: 192,
    v_head_dim: 256,
    index_n_heads: 32,
    intermediate_size: 1024,
  };
  const kind = 'GLM with shared selections';

  test("tensor cores for all of GLM's shapes but what is float32 on purpose", () => {
    const { choices } = warmedUp(glm, { numerics: 'fp8', kind });
    const plain = choices.filter(({ unit }) => unit === 'plain').map(({ op }) => op);
    expect(plain).toEqual(['layers in float32']);
    const text = formatKernelChoices(choices);
    for (const line of [
      /^linear layers +tensor cores +sm90_gemm/m,
      /^experts +tensor cores +sm90_gemm/m,
      /^kv_b of each head +tensor cores +sm90_gemm/m,
      /^absorbed attention +tensor cores +sm90_sparse_mla$/m,
      /^expanded attention +tensor cores +sm90_dense_mha$/m,
      /^index scores +tensor cores +sm90_index_scores$/m,
    ]) {
      expect(text).toMatch(line);
    }
  });

  test('the plain kernel, with the shape that has no other', () => {
    const changes = { ...glm, index_n_heads: 24, v_head_dim: 128, hidden_size: 520 };
    const { choices } = warmedUp(changes, { numerics: 'fp8', kind });
    const text = formatKernelChoices(choices);
    expect(text).toMatch(/^index scores +plain +index_scores \(24 heads of 128\)$/m);
    expect(text).toMatch(/^linear layers +plain +gemm_f32 \(520 to \d+/m);
    expect(text).toMatch(
      /^expanded attention +plain +none, so that long chunks attend absorbed \(64 heads of 192 \+ 64, values of 128\)$/m,
    );
  });
});
