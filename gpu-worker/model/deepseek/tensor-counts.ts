/**
 * Holds the counts of config.json against the tensors that there are, before a list as long as
 * those counts is made. The tensors' shapes bound every other size, as they are compared one by
 * one.
 */
import { check } from '../config-error.ts';
import type { ModelConfig } from './config.ts';

/** @throws ConfigError that names the key whose count the tensors do not reach. */
export function checkTensorCounts(config: ModelConfig, names: Iterable<string>): void {
  const expertsOf = countExperts(names);
  const held = expertsOf.size;
  check(
    'num_hidden_layers',
    config.layers <= held,
    `is ${config.layers}, but the checkpoint holds tensors of ${held} layers`,
  );
  if (config.experts === null) return;
  const { count } = config.experts;
  for (let layer = config.denseLayers; layer < config.layers; layer++) {
    const experts = expertsOf.get(layer)?.size ?? 0;
    check(
      'n_routed_experts',
      count <= experts,
      `is ${count}, but the checkpoint holds ${experts} experts of layer ${layer}`,
    );
  }
}

/** The experts of each layer that has any tensor. */
function countExperts(names: Iterable<string>): Map<number, Set<number>> {
  const expertsOf = new Map<number, Set<number>>();
  for (const name of names) {
    const match = /^model\.layers\.(\d+)\.(?:mlp\.experts\.(\d+)\.)?/.exec(name);
    if (match === null) continue;
    const layer = Number(match[1]);
    const experts = expertsOf.get(layer) ?? new Set<number>();
    expertsOf.set(layer, experts);
    if (match[2] !== undefined) experts.add(Number(match[2]));
  }
  return expertsOf;
}
