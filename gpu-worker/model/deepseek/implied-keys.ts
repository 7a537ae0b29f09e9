/**
 * Keys that transformers writes although others imply them. Each may be absent; one that is there
 * has to say what the others do.
 */
import { z } from 'zod';
import { check } from '../config-error.ts';

const count = z.int().min(1);

export const impliedKeys = {
  head_dim: count.nullish(),
  qk_head_dim: count.nullish(),
  rope_interleave: z.boolean().nullish(),
  mlp_layer_types: z.array(z.string()).nullish(),
  layer_types: z.array(z.string()).nullish(),
  indexer_types: z.array(z.string()).nullish(),
  num_local_experts: count.nullish(),
  num_experts: count.nullish(),
  mlp_bias: z.literal(false).nullish(),
  is_encoder_decoder: z.literal(false).nullish(),
};

type RawImplied = z.infer<z.ZodObject<typeof impliedKeys>>;

interface Implying {
  readonly model_type: 'deepseek_v3' | 'deepseek_v32';
  readonly num_hidden_layers: number;
  readonly first_k_dense_replace: number;
  readonly qk_nope_head_dim: number;
  readonly qk_rope_head_dim: number;
  readonly n_routed_experts?: number | null | undefined;
}

/** Attention of every layer, as transformers calls it. */
const layerTypeOf = {
  deepseek_v3: ['full_attention'],
  deepseek_v32: ['deepseek_sparse_attention', 'full_attention'],
};

/** @throws ConfigError that names the key and what contradicts it. */
export function checkImplied(raw: RawImplied & Implying): void {
  const { qk_nope_head_dim: nope, qk_rope_head_dim: rope } = raw;
  checkNumber('head_dim', raw.head_dim, { value: rope, of: 'qk_rope_head_dim' });
  checkNumber('qk_head_dim', raw.qk_head_dim, {
    value: nope + rope,
    of: 'qk_nope_head_dim + qk_rope_head_dim',
  });
  for (const key of ['num_local_experts', 'num_experts'] as const) {
    const experts = raw.n_routed_experts ?? null;
    checkNumber(key, raw[key], { value: experts, of: 'n_routed_experts' });
  }
  check(
    'rope_interleave',
    raw.rope_interleave !== false,
    `is false, but model_type ${raw.model_type} rotates pairs of neighbours`,
  );
  const dense = raw.first_k_dense_replace;
  checkLayers(raw, 'mlp_layer_types', {
    expected: (layer) => [layer < dense ? 'dense' : 'sparse'],
    of: `first_k_dense_replace is ${dense}`,
  });
  checkLayers(raw, 'layer_types', {
    expected: () => layerTypeOf[raw.model_type],
    of: `model_type is ${raw.model_type}`,
  });
  checkLayers(raw, 'indexer_types', {
    expected: () => ['full'],
    of: 'this engine runs the indexer in every layer',
  });
}

function checkNumber(
  key: string,
  found: number | null | undefined,
  implied: { readonly value: number | null; readonly of: string },
): void {
  const holds = found === null || found === undefined || found === implied.value;
  check(key, holds, `is ${found}, but ${implied.of} is ${implied.value}`);
}

function checkLayers(
  raw: RawImplied & Implying,
  key: 'mlp_layer_types' | 'layer_types' | 'indexer_types',
  implied: { readonly expected: (layer: number) => readonly string[]; readonly of: string },
): void {
  const types = raw[key];
  if (!types) return;
  const layers = raw.num_hidden_layers;
  const isWhole = types.length === layers;
  check(key, isWhole, `has ${types.length} entries, but num_hidden_layers is ${layers}`);
  for (const [layer, type] of types.entries()) {
    const holds = implied.expected(layer).includes(type);
    check(`${key}.${layer}`, holds, `is "${type}", but ${implied.of}`);
  }
}
