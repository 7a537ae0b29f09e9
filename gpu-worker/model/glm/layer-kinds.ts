/**
 * Reads which layers of a GLM-5 checkpoint have experts, and which an indexer of their own: from
 * lists of types, a pattern, or a frequency. Where several say it they have to say the same, except
 * that a pattern stands above a frequency.
 */
import { z } from 'zod';
import { at } from '../../at.ts';
import { check } from '../config-error.ts';
import type { LayerKind } from '../mla-moe/config.ts';
import { layersMax } from '../mla-moe/config-keys.ts';
import { checkLayers, checkLength } from '../mla-moe/implied-keys.ts';
import type { ImpliedConfig } from '../mla-moe/implied-keys.ts';

const indexerType = z.enum(['full', 'shared']);
type IndexerType = z.infer<typeof indexerType>;

export const layerKeys = {
  first_k_dense_replace: z.int().min(0).nullish(),
  mlp_layer_types: z.array(z.enum(['dense', 'sparse'])).nullish(),
  indexer_types: z.array(indexerType).nullish(),
  index_topk_pattern: z
    .union([
      z.string().regex(/^[FS]*$/, 'must be a letter for each layer, F of full or S of shared'),
      z.array(indexerType),
    ])
    .nullish(),
  index_topk_freq: z.int().min(1).max(layersMax).nullish(),
  index_skip_topk_offset: z.int().min(0).max(layersMax).nullish(),
};

type LayerKeys = z.infer<z.ZodObject<typeof layerKeys>>;
type LayerConfig = LayerKeys & ImpliedConfig;

/** The offset of the published code where config.json has none. */
const defaultOffset = 2;

/** @throws ConfigError that names the key, and both of two keys that contradict each other. */
export function readLayerKinds(raw: LayerConfig): readonly LayerKind[] {
  const indexers = readIndexers(raw);
  return readFeedForwards(raw).map((feedForward, layer) => ({
    feedForward,
    indexer: at(indexers, layer),
  }));
}

function readFeedForwards(raw: LayerConfig): LayerKind['feedForward'][] {
  const { num_hidden_layers: layers, first_k_dense_replace: dense, mlp_layer_types: types } = raw;
  if (types && dense == null) {
    checkLength('mlp_layer_types', types, layers);
    return types.map((type) => (type === 'dense' ? 'dense' : 'experts'));
  }
  check(
    'first_k_dense_replace',
    dense != null,
    'is missing, and there are no mlp_layer_types either',
  );
  const denseLayers = dense ?? 0;
  const fits = denseLayers <= layers;
  check('first_k_dense_replace', fits, `must be at most num_hidden_layers (${layers})`);
  checkLayers(raw, 'mlp_layer_types', {
    expected: (layer) => [layer < denseLayers ? 'dense' : 'sparse'],
    of: `first_k_dense_replace is ${denseLayers}`,
  });
  return Array.from({ length: layers }, (_, layer) => (layer < denseLayers ? 'dense' : 'experts'));
}

interface IndexerRule {
  /** Names the keys that say it, for messages. */
  readonly keys: string;
  readonly typeOf: (layer: number) => IndexerType;
}

function readIndexers(raw: LayerConfig): IndexerType[] {
  const { num_hidden_layers: layers, indexer_types: types } = raw;
  const rule = patternRule(raw) ?? frequencyRule(raw);
  if (types && rule !== null) {
    checkLength('indexer_types', types, layers);
    for (const [layer, type] of types.entries()) {
      const other = rule.typeOf(layer);
      const complaint = `is "${type}", but ${rule.keys} makes it "${other}"`;
      check(`indexer_types.${layer}`, type === other, complaint);
    }
  } else if (types) {
    checkLength('indexer_types', types, layers);
  }
  const typeOf = (layer: number) => types?.[layer] ?? rule?.typeOf(layer) ?? 'full';
  const found = Array.from({ length: layers }, (_, layer) => typeOf(layer));
  const source = types ? 'indexer_types' : (rule?.keys ?? 'indexer_types');
  check(source, found[0] === 'full', 'makes layer 0 share a selection, but no layer is before it');
  return found;
}

function patternRule({
  index_topk_pattern: pattern,
  num_hidden_layers: layers,
}: LayerConfig): IndexerRule | null {
  if (!pattern || pattern.length === 0) return null;
  checkLength('index_topk_pattern', pattern, layers);
  const typeOf = (layer: number): IndexerType => {
    const entry = at<string>(pattern, layer);
    return entry === 'F' || entry === 'full' ? 'full' : 'shared';
  };
  return { keys: 'index_topk_pattern', typeOf };
}

function frequencyRule(raw: LayerKeys): IndexerRule | null {
  const { index_topk_freq: frequency, index_skip_topk_offset: offset } = raw;
  if (frequency == null) return null;
  const skipped = offset ?? defaultOffset;
  return {
    keys: `index_topk_freq ${frequency} with index_skip_topk_offset ${skipped}`,
    typeOf: (layer) => (Math.max(layer - skipped + 1, 0) % frequency === 0 ? 'full' : 'shared'),
  };
}
