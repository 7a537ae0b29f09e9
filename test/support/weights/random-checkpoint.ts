/**
 * Writes a checkpoint with random weights in the published layout: config.json and safetensors, one
 * file or shards with an index. Weights are scaled so that activations neither die out nor explode,
 * the gate's bias makes some biased scores negative, and the index weights have both signs.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { at } from '../../../gpu-worker/at.ts';
import { hasExperts, indexerType } from '../../oracle/config.ts';
import { e4m3Code, toBf16, toE4m3 } from '../../oracle/number-formats.ts';
import { fp8Keys } from './checkpoint-config.ts';
import type { CheckpointConfig } from './checkpoint-config.ts';
import { seededRandom } from '../random.ts';
import type { Random } from '../random.ts';
import { pack } from './safetensors-writer.ts';
import type { TensorToWrite } from './safetensors-writer.ts';

export interface CheckpointOptions {
  readonly seed: number;
  /** Dtype of the projections. With F8_E4M3 and BF16 the other weights are BF16, as published. */
  readonly dtype: 'F32' | 'BF16' | 'F8_E4M3';
  /** 1 writes model.safetensors, more write shards and an index. */
  readonly shards: number;
}

/** Rows and columns of a weight that share a scale. */
const scaleBlock = 128;

/** Returns the directory, which is made if it is not there. */
export function writeRandomCheckpoint(
  directory: string,
  config: CheckpointConfig,
  options: CheckpointOptions,
): string {
  const tensors = randomTensors(config, options);
  const quantization = options.dtype === 'F8_E4M3' ? { quantization_config: fp8Keys } : {};
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...quantization, ...config }));
  if (options.shards === 1) writeFileSync(join(directory, 'model.safetensors'), pack(tensors));
  else writeShards(directory, tensors, options.shards);
  return directory;
}

/** Deals the tensors out in turn, so that a weight and its scales lie in different shards. */
function writeShards(directory: string, tensors: readonly TensorToWrite[], shards: number): void {
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const file = `model-${fiveDigits(shard + 1)}-of-${fiveDigits(shards)}.safetensors`;
    const own = tensors.filter((_, i) => i % shards === shard);
    for (const { name } of own) weightMap[name] = file;
    writeFileSync(join(directory, file), pack(own));
  }
  const totalBytes = tensors.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  const index = { metadata: { total_size: totalBytes }, weight_map: weightMap };
  writeFileSync(join(directory, 'model.safetensors.index.json'), JSON.stringify(index));
}

function fiveDigits(count: number): string {
  return String(count).padStart(5, '0');
}

/** All tensors of the model, in the order of the layers. */
export function randomTensors(
  config: CheckpointConfig,
  { seed, dtype }: Pick<CheckpointOptions, 'seed' | 'dtype'>,
): TensorToWrite[] {
  const write = new TensorWriter(seededRandom(seed), dtype);
  const { hidden_size: hidden, vocab_size: vocabulary } = config;
  write.wide('model.embed_tokens.weight', [vocabulary, hidden], 1);
  const modules = config.num_nextn_predict_layers;
  for (let layer = 0; layer < config.num_hidden_layers + modules; layer++) {
    const isModule = layer >= config.num_hidden_layers;
    const prefix = `model.layers.${layer}`;
    if (isModule) writeJoin(write, prefix, hidden);
    write.gain(`${prefix}.input_layernorm.weight`, hidden);
    writeAttention(write, `${prefix}.self_attn`, config);
    const indexer = isModule ? 'full' : indexerType(config, layer);
    if (indexer === 'full') writeIndexer(write, `${prefix}.self_attn`, config);
    write.gain(`${prefix}.post_attention_layernorm.weight`, hidden);
    if (isModule || hasExperts(config, layer)) writeExperts(write, `${prefix}.mlp`, config);
    else writeMlp(write, `${prefix}.mlp`, [hidden, config.intermediate_size]);
  }
  write.gain('model.norm.weight', hidden);
  write.wide('lm_head.weight', [vocabulary, hidden], hidden ** -0.5);
  return write.tensors;
}

/** The tensors that an MTP module has beside those of a layer; embedding and head are shared. */
function writeJoin(write: TensorWriter, prefix: string, hidden: number): void {
  write.gain(`${prefix}.enorm.weight`, hidden);
  write.gain(`${prefix}.hnorm.weight`, hidden);
  write.projection(`${prefix}.eh_proj.weight`, hidden, 2 * hidden);
  write.gain(`${prefix}.shared_head.norm.weight`, hidden);
}

function writeAttention(write: TensorWriter, prefix: string, config: CheckpointConfig): void {
  const { hidden_size: hidden, num_attention_heads: heads, kv_lora_rank: rank } = config;
  const { qk_nope_head_dim: nope, qk_rope_head_dim: rope, v_head_dim: value } = config;
  const queryRank = config.q_lora_rank;
  if (queryRank) {
    write.projection(`${prefix}.q_a_proj.weight`, queryRank, hidden);
    write.gain(`${prefix}.q_a_layernorm.weight`, queryRank);
    write.projection(`${prefix}.q_b_proj.weight`, heads * (nope + rope), queryRank);
  } else {
    write.projection(`${prefix}.q_proj.weight`, heads * (nope + rope), hidden);
  }
  write.projection(`${prefix}.kv_a_proj_with_mqa.weight`, rank + rope, hidden);
  write.gain(`${prefix}.kv_a_layernorm.weight`, rank);
  write.projection(`${prefix}.kv_b_proj.weight`, heads * (nope + value), rank);
  write.projection(`${prefix}.o_proj.weight`, hidden, heads * value);
}

function writeIndexer(write: TensorWriter, prefix: string, config: CheckpointConfig): void {
  const { hidden_size: hidden, q_lora_rank: queryRank } = config;
  const { index_n_heads: indexHeads, index_head_dim: indexDim } = config;
  if (indexHeads === undefined || indexDim === undefined || !queryRank) return;
  write.projection(`${prefix}.indexer.wq_b.weight`, indexHeads * indexDim, queryRank);
  write.projection(`${prefix}.indexer.wk.weight`, indexDim, hidden);
  write.float32(`${prefix}.indexer.k_norm.weight`, indexDim, (normal) => 1 + 0.1 * normal);
  write.float32(`${prefix}.indexer.k_norm.bias`, indexDim, (normal) => 0.3 * normal);
  write.wide(`${prefix}.indexer.weights_proj.weight`, [indexHeads, hidden], hidden ** -0.5);
}

function writeMlp(
  write: TensorWriter,
  prefix: string,
  [hidden, intermediate]: [number, number],
): void {
  write.projection(`${prefix}.gate_proj.weight`, intermediate, hidden);
  write.projection(`${prefix}.up_proj.weight`, intermediate, hidden);
  write.projection(`${prefix}.down_proj.weight`, hidden, intermediate);
}

function writeExperts(write: TensorWriter, prefix: string, config: CheckpointConfig): void {
  const { hidden_size: hidden, moe_intermediate_size: intermediate } = config;
  const experts = config.n_routed_experts;
  write.wide(`${prefix}.gate.weight`, [experts, hidden], 2 * hidden ** -0.5);
  write.float32(`${prefix}.gate.e_score_correction_bias`, experts, (normal) => 0.5 * normal - 0.5);
  const shared = intermediate * config.n_shared_experts;
  writeMlp(write, `${prefix}.shared_experts`, [hidden, shared]);
  for (let expert = 0; expert < experts; expert++) {
    writeMlp(write, `${prefix}.experts.${expert}`, [hidden, intermediate]);
  }
}

/** Draws values and keeps them in the dtype that their role has in a published checkpoint. */
class TensorWriter {
  readonly tensors: TensorToWrite[] = [];
  readonly #random: Random;
  readonly #dtype: CheckpointOptions['dtype'];

  constructor(random: Random, dtype: CheckpointOptions['dtype']) {
    this.#random = random;
    this.#dtype = dtype;
  }

  /** A linear weight [outputs, inputs]: the role that may be fp8. */
  projection(name: string, outputs: number, inputs: number): void {
    const values = this.#draw(outputs * inputs, (normal) => normal * inputs ** -0.5);
    const shape = [outputs, inputs];
    if (this.#dtype === 'F8_E4M3') this.tensors.push(...fp8Tensors(name, shape, values));
    else this.#push(name, shape, values);
  }

  /** A matrix that is never fp8. */
  wide(name: string, shape: [number, number], deviation: number): void {
    this.#push(
      name,
      shape,
      this.#draw(shape[0] * shape[1], (normal) => normal * deviation),
    );
  }

  gain(name: string, length: number): void {
    this.#push(
      name,
      [length],
      this.#draw(length, (normal) => 1 + 0.1 * normal),
    );
  }

  /** A vector that is float32 in every checkpoint. */
  float32(name: string, length: number, value: (normal: number) => number): void {
    const bytes = float32Bytes(this.#draw(length, value));
    this.tensors.push({ name, dtype: 'F32', shape: [length], bytes });
  }

  #draw(count: number, value: (normal: number) => number): Float64Array {
    return Float64Array.from({ length: count }, () => value(this.#random.normal()));
  }

  #push(name: string, shape: number[], values: Float64Array): void {
    const wide = this.#dtype === 'F32';
    const bytes = wide ? float32Bytes(values) : bf16Bytes(values);
    this.tensors.push({ name, dtype: wide ? 'F32' : 'BF16', shape, bytes });
  }
}

/** Blocks of 128 by 128 with a scale each, rounded up to a power of two as since V3.1. */
function fp8Tensors(name: string, shape: number[], values: Float64Array): TensorToWrite[] {
  const [outputs, inputs] = [at(shape, 0), at(shape, 1)];
  const scaleShape = [Math.ceil(outputs / scaleBlock), Math.ceil(inputs / scaleBlock)] as const;
  const blockOf = (i: number) =>
    Math.floor(Math.floor(i / inputs) / scaleBlock) * scaleShape[1] +
    Math.floor((i % inputs) / scaleBlock);
  const largest = new Float64Array(scaleShape[0] * scaleShape[1]);
  for (let i = 0; i < outputs * inputs; i++) {
    const block = blockOf(i);
    largest[block] = Math.max(at(largest, block), Math.abs(at(values, i)));
  }
  const scales = largest.map((amax) => 2 ** Math.ceil(Math.log2(Math.max(amax, 1e-12) / 448)));
  const codes = Uint8Array.from(values, (value, i) =>
    e4m3Code(toE4m3(value / at(scales, blockOf(i)))),
  );
  const scaleBytes = float32Bytes(scales);
  return [
    { name, dtype: 'F8_E4M3', shape, bytes: codes },
    { name: `${name}_scale_inv`, dtype: 'F32', shape: scaleShape, bytes: scaleBytes },
  ];
}

function float32Bytes(values: Float64Array): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}

/** A bfloat16 is the upper half of a float32, here on a little-endian machine. */
function bf16Bytes(values: Float64Array): Uint8Array {
  const words = new Uint32Array(Float32Array.from(values, toBf16).buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}
