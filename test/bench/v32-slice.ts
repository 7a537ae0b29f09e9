/**
 * A slice of DeepSeek-V3.2 at full width: one layer with a dense MLP and three with experts, with
 * embedding and head. Weights are random and made on the GPU in the published formats.
 */
import type { HostTensor } from '../../gpu-worker/backend/weights.ts';
import type { TensorSpec } from '../../gpu-worker/weights/tensor-spec.ts';
import type { CudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import { CudaMatrix, asCuda } from '../../gpu-worker/backend/cuda/handles.ts';
import { parseModelConfig } from '../../gpu-worker/model/families.ts';
import { WeightBuilder } from '../../gpu-worker/model/mla-moe/weights.ts';
import type { ModelWeights, WeightMaker } from '../../gpu-worker/model/mla-moe/weights.ts';
import { randomize } from './gpu-harness.ts';

/** The published config.json, with four layers instead of 61 and no MTP module. */
export const sliceConfig = parseModelConfig({
  architectures: ['DeepseekV32ForCausalLM'],
  model_type: 'deepseek_v32',
  vocab_size: 129280,
  hidden_size: 7168,
  intermediate_size: 18432,
  moe_intermediate_size: 2048,
  num_hidden_layers: 4,
  first_k_dense_replace: 1,
  num_attention_heads: 128,
  num_key_value_heads: 128,
  n_shared_experts: 1,
  n_routed_experts: 256,
  num_experts_per_tok: 8,
  n_group: 8,
  topk_group: 4,
  norm_topk_prob: true,
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  topk_method: 'noaux_tc',
  q_lora_rank: 1536,
  kv_lora_rank: 512,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  index_n_heads: 64,
  index_head_dim: 128,
  index_topk: 2048,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  rope_scaling: {
    type: 'yarn',
    factor: 40,
    original_max_position_embeddings: 4096,
    beta_fast: 32,
    beta_slow: 1,
    mscale: 1,
    mscale_all_dim: 1,
  },
  max_position_embeddings: 163840,
  quantization_config: {
    quant_method: 'fp8',
    fmt: 'e4m3',
    activation_scheme: 'dynamic',
    weight_block_size: [128, 128],
    scale_fmt: 'ue8m0',
  },
  bos_token_id: 0,
  eos_token_id: 1,
});

/** Deviation of the e4m3 codes before their scale. */
const codeDeviation = 16;

/** Outputs of a product keep the deviation of its inputs. */
export function sliceWeights(backend: CudaBackend): ModelWeights {
  const maker: WeightMaker = {
    weights: {
      matrix: (source) => randomMatrix(backend, source),
      vector: (name, values) => backend.weights.vector(name, values),
    },
    mla: backend.mla,
    moe: backend.moe,
    ranks: backend.ranks,
  };
  const builder = new WeightBuilder(sliceConfig, maker);
  const spare = spareBytes();
  for (const spec of builder.specs) {
    if (spec.use === 'needed') builder.accept(hostTensor(spec, spare));
  }
  backend.context.device.synchronize();
  return builder.finish();
}

/**
 * Norms are near 1, biases near 0; matrices have their shape's bytes and get their values on the
 * GPU.
 */
function hostTensor({ name, shape, role }: TensorSpec, spare: SpareBytes): HostTensor {
  const count = shape.reduce((product, size) => product * size, 1);
  if (role === 'vector') {
    const middle = name.endsWith('bias') ? 0 : 1;
    const values = Float32Array.from({ length: count }, (_, i) => middle + 0.1 * Math.sin(i * 7.1));
    return { name, dtype: 'F32', shape, bytes: new Uint8Array(values.buffer), scales: null };
  }
  if (role === 'f32-matrix') {
    return { name, dtype: 'BF16', shape, bytes: spare(count * 2), scales: null };
  }
  return { name, dtype: 'F8_E4M3', shape, bytes: spare(count), scales: blockScales(shape) };
}

const keptBytes = 2 ** 25;

/** Bytes that many tensors may share, since they are copied at once. */
type SpareBytes = (count: number) => Uint8Array;

function spareBytes(): SpareBytes {
  let most = new Uint8Array(0);
  return (count) => {
    if (count > most.length) {
      most = new Uint8Array(count);
      // kv_b, which is split at once, keeps these: magnitudes from 2 to 30 as e4m3, of both signs.
      for (let i = 0; i < Math.min(count, keptBytes); i++) {
        most[i] = 0x40 | (Math.imul(i, 2654435761) >>> 27) | ((Math.imul(i, 40503) >>> 9) & 0x80);
      }
    }
    return most.subarray(0, count);
  };
}

function randomMatrix(backend: CudaBackend, source: HostTensor): CudaMatrix {
  const matrix = asCuda(CudaMatrix, backend.weights.matrix(source));
  const { at, dtype, inputs, outputs } = matrix;
  const deviation = source.dtype === 'F8_E4M3' ? codeDeviation : inputs ** -0.5;
  randomize(backend, { at, count: inputs * outputs, dtype }, deviation);
  return matrix;
}

function blockScales([outputs = 0, inputs = 0]: readonly number[]): Float32Array {
  const blocks = Math.ceil(outputs / 128) * Math.ceil(inputs / 128);
  return new Float32Array(blocks).fill(inputs ** -0.5 / codeDeviation);
}
