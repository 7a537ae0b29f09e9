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

/** The keys that imply others, and the others. */
export type ImpliedConfig = RawImplied & Implying;

interface Implying {
  readonly num_hidden_layers: number;
  readonly qk_nope_head_dim: number;
  readonly qk_rope_head_dim: number;
  readonly n_routed_experts?: number | null | undefined;
}

/** @throws ConfigError that names the key and what contradicts it. */
export function checkImplied(raw: ImpliedConfig, modelType: string): void {
  const { qk_nope_head_dim: nope, qk_rope_head_dim: rope } = raw;
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
    `is false, but model_type ${modelType} rotates pairs of neighbours`,
  );
}

/** No head has a width of `head_dim` alone; a family's checkpoints repeat one of these in it. */
export function checkHeadDim(
  raw: ImpliedConfig,
  keys: readonly ('qk_rope_head_dim' | 'qk_nope_head_dim')[],
): void {
  const { head_dim: found } = raw;
  const isAbsent = found === null || found === undefined;
  const implied = keys.map((key) => `${key} is ${raw[key]}`).join(' and ');
  const holds = isAbsent || keys.some((key) => raw[key] === found);
  check('head_dim', holds, `is ${found}, but ${implied}`);
}

function checkNumber(
  key: string,
  found: number | null | undefined,
  implied: { readonly value: number | null; readonly of: string },
): void {
  const holds = found === null || found === undefined || found === implied.value;
  check(key, holds, `is ${found}, but ${implied.of} is ${implied.value}`);
}

/** A list of a type for each layer, where there is one, has those that `implied` allows. */
export function checkLayers(
  raw: ImpliedConfig,
  key: 'mlp_layer_types' | 'layer_types' | 'indexer_types',
  implied: { readonly expected: (layer: number) => readonly string[]; readonly of: string },
): void {
  const types = raw[key];
  if (!types) return;
  checkLength(key, types, raw.num_hidden_layers);
  for (const [layer, type] of types.entries()) {
    const holds = implied.expected(layer).includes(type);
    check(`${key}.${layer}`, holds, `is "${type}", but ${implied.of}`);
  }
}

/** A list or a text of the kind has an entry for each layer. */
export function checkLength(key: string, entries: ArrayLike<unknown>, layers: number): void {
  const isWhole = entries.length === layers;
  check(key, isWhole, `has ${entries.length} entries, but num_hidden_layers is ${layers}`);
}
