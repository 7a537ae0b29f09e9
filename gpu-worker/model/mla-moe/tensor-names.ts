/**
 * Holds config.json against the names of the tensors that there are, before a list as long as its
 * counts is made. The tensors' shapes bound every other size, as they are compared one by one.
 */
import { check, ConfigError } from '../config-error.ts';
import type { ModelConfig } from './config.ts';

/** @throws ConfigError that names the key which the tensors contradict. */
export function checkTensorNames(config: ModelConfig, names: Iterable<string>): void {
  const layers = readLayers(names);
  const held = layers.size;
  check(
    'num_hidden_layers',
    config.layers <= held,
    `is ${config.layers}, but the checkpoint holds tensors of ${held} layers`,
  );
  checkModules(config, layers);
  checkExpertCounts(config, layers);
  checkSharedIndexers(config, layers);
}

/** A layer, as far as the names of its tensors tell. */
interface NamedLayer {
  readonly experts: Set<number>;
  /** A tensor of an indexer. */
  indexer: string | null;
  /** True if it is a multi-token prediction module. */
  projectsPair: boolean;
}

function readLayers(names: Iterable<string>): Map<number, NamedLayer> {
  const layers = new Map<number, NamedLayer>();
  for (const name of names) {
    const match = /^model\.layers\.(\d+)\.(?:mlp\.experts\.(\d+)\.)?/.exec(name);
    if (match === null) continue;
    const number = Number(match[1]);
    const layer = layers.get(number) ?? { experts: new Set(), indexer: null, projectsPair: false };
    layers.set(number, layer);
    if (match[2] !== undefined) layer.experts.add(Number(match[2]));
    const rest = name.slice(match[0].length);
    if (rest.startsWith('self_attn.indexer.')) layer.indexer ??= name;
    if (rest === 'eh_proj.weight') layer.projectsPair = true;
  }
  return layers;
}

/** A repack without its MTP module would serve without drafts, and nobody would know why. */
function checkModules(config: ModelConfig, layers: ReadonlyMap<number, NamedLayer>): void {
  for (let layer = config.layers; layer < config.layers + config.mtpLayers; layer++) {
    check(
      'num_nextn_predict_layers',
      layers.get(layer)?.projectsPair ?? false,
      `is ${config.mtpLayers}, but the checkpoint lacks the MTP module of layer ${layer} ` +
        `(model.layers.${layer}.eh_proj.weight); set it to 0 to serve without the module`,
    );
  }
}

function checkExpertCounts(config: ModelConfig, layers: ReadonlyMap<number, NamedLayer>): void {
  if (config.experts === null) return;
  const { count } = config.experts;
  for (const [layer, { feedForward }] of config.layerKinds.entries()) {
    if (feedForward === 'dense') continue;
    const experts = layers.get(layer)?.experts.size ?? 0;
    check(
      'n_routed_experts',
      count <= experts,
      `is ${count}, but the checkpoint holds ${experts} experts of layer ${layer}`,
    );
  }
}

function checkSharedIndexers(config: ModelConfig, layers: ReadonlyMap<number, NamedLayer>): void {
  let lastFull = 0;
  for (const [layer, { indexer }] of config.layerKinds.entries()) {
    if (indexer === 'full') lastFull = layer;
    const surplus = layers.get(layer)?.indexer ?? null;
    if (indexer !== 'shared' || surplus === null) continue;
    throw new ConfigError(
      `indexer_types makes layer ${layer} share the selection of layer ${lastFull}, ` +
        `but the checkpoint holds an indexer of it: ${surplus}`,
    );
  }
}
