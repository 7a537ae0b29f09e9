/**
 * Writes a checkpoint of any size in the published layout without holding it in memory: BF16
 * weights of plausible values, no part of them like another, four shards with an index.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { at } from '../../../gpu-worker/at.ts';
import { parseModelConfig } from '../../../gpu-worker/model/families.ts';
import { tensorSpecs } from '../../../gpu-worker/model/mla-moe/tensors.ts';
import type { CheckpointConfig } from './checkpoint-config.ts';
import { headerOf } from './safetensors-writer.ts';

const shards = 4;
const blockBytes = 2 ** 22;

/**
 * About 0.3 GB in the embedding, the head and a dense layer, and 0.33 GB for each further layer.
 */
export function largeConfig(layers: number): CheckpointConfig {
  return {
    architectures: ['DeepseekV32ForCausalLM'],
    model_type: 'deepseek_v32',
    vocab_size: 16_384,
    hidden_size: 2048,
    intermediate_size: 4096,
    moe_intermediate_size: 1024,
    num_hidden_layers: layers,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    n_shared_experts: 1,
    n_routed_experts: 24,
    routed_scaling_factor: 1,
    kv_lora_rank: 512,
    q_lora_rank: 768,
    qk_rope_head_dim: 64,
    v_head_dim: 128,
    qk_nope_head_dim: 128,
    n_group: 1,
    topk_group: 1,
    num_experts_per_tok: 4,
    norm_topk_prob: true,
    hidden_act: 'silu',
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-6,
    bos_token_id: 0,
    eos_token_id: 1,
    tie_word_embeddings: false,
    attention_bias: false,
    index_topk: 512,
    index_head_dim: 128,
    index_n_heads: 16,
    first_k_dense_replace: 1,
    moe_layer_freq: 1,
    scoring_func: 'sigmoid',
    topk_method: 'noaux_tc',
    num_nextn_predict_layers: 0,
    rope_theta: 10_000,
    rope_scaling: null,
  };
}

/** Returns the bytes of the tensor files. */
export function writeLargeCheckpoint(directory: string, config: CheckpointConfig): number {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  const specs = [...tensorSpecs(parseModelConfig(config))].filter(({ use }) => use === 'needed');
  const weightMap: Record<string, string> = {};
  const values = new BlockMaker();
  let bytesWritten = 0;
  for (let shard = 0; shard < shards; shard++) {
    const name = `model-0000${shard + 1}-of-0000${shards}.safetensors`;
    const from = Math.floor((specs.length * shard) / shards);
    const own = specs.slice(from, Math.floor((specs.length * (shard + 1)) / shards));
    const tensors = own.map(({ name: tensor, shape }) => {
      weightMap[tensor] = name;
      const bytes = 2 * shape.reduce((product, size) => product * size, 1);
      // Only the length is looked at: the bytes are made as they are written.
      return { name: tensor, dtype: 'BF16', shape, bytes: { byteLength: bytes } as Uint8Array };
    });
    const header = Buffer.from(JSON.stringify(headerOf(tensors)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const file = openSync(join(directory, name), 'w');
    bytesWritten += writeSync(file, length) + writeSync(file, header);
    for (const { bytes } of tensors) {
      for (let left = bytes.byteLength; left > 0;) {
        const written = writeSync(file, values.next(), 0, Math.min(left, blockBytes));
        bytesWritten += written;
        left -= written;
      }
    }
    closeSync(file);
  }
  const index = { metadata: { total_size: bytesWritten }, weight_map: weightMap };
  writeFileSync(join(directory, 'model.safetensors.index.json'), JSON.stringify(index));
  return bytesWritten;
}

/** The same random values each time but for a count in them, which makes every block another. */
class BlockMaker {
  readonly #words = new Uint16Array(blockBytes / 2);
  #count = 0;

  constructor() {
    randomFillSync(this.#words);
    // Exponents that make the values of size 2^-7 to 2^-4, with either sign.
    for (let i = 0; i < this.#words.length; i++) {
      this.#words[i] = (at(this.#words, i) & 0x81ff) | 0x3c00;
    }
  }

  next(): Uint8Array {
    this.#count++;
    // Small tensors begin with few of these words, so the count stands in the first of them.
    this.#words[0] = 0x3c00 | (this.#count & 0x7f);
    this.#words[1] = 0x3c00 | ((this.#count >> 7) & 0x7f);
    return new Uint8Array(this.#words.buffer);
  }
}
