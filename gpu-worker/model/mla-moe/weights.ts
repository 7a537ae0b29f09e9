/**
 * Turns a checkpoint's tensors, in whatever order they arrive, into the backend's weights, and
 * assembles them into the shape that the forward graph reads.
 */
import { strict as assert } from 'node:assert';
import { bf16ToF32 } from '../../backend/bfloat16.ts';
import type { Backend } from '../../backend/backend.ts';
import type { KvUp } from '../../backend/mla.ts';
import type { Experts, Matrix, Vector } from '../../backend/shapes.ts';
import type { HostTensor } from '../../backend/weights.ts';
import type { TensorSpec } from '../../weights/tensor-spec.ts';
import type { LayerKind, ModelConfig } from './config.ts';
import { mtpLayerKind, tensorSpecs } from './tensors.ts';

export interface ModelWeights {
  readonly embedding: Matrix;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: Vector;
  readonly head: Matrix;
  /** The MTP module, in a model that drafts. */
  readonly drafter: DrafterWeights | null;
}

/** A multi-token prediction module; it shares the model's embedding and head. */
export interface DrafterWeights {
  readonly embeddingNorm: Vector;
  readonly hiddenNorm: Vector;
  /** [hidden, 2 * hidden] its input is embedding, then hidden state. */
  readonly join: Matrix;
  readonly layer: LayerWeights;
  readonly headNorm: Vector;
}

export interface LayerWeights {
  readonly inputNorm: Vector;
  readonly query: QueryWeights;
  /** [latent + rope, hidden] */
  readonly kvA: Matrix;
  readonly kvNorm: Vector;
  readonly kvB: KvUp;
  readonly output: Matrix;
  /** null in a layer that shares another's selection, and in models without an indexer. */
  readonly indexer: IndexerWeights | null;
  readonly postNorm: Vector;
  readonly feedForward: FeedForwardWeights;
}

export type QueryWeights =
  | { readonly kind: 'direct'; readonly q: Matrix }
  | { readonly kind: 'latent'; readonly qA: Matrix; readonly qNorm: Vector; readonly qB: Matrix };

export interface IndexerWeights {
  readonly queries: Matrix;
  readonly key: Matrix;
  readonly keyNorm: { readonly weight: Vector; readonly bias: Vector };
  readonly headWeights: Matrix;
}

export interface MlpWeights {
  readonly gate: Matrix;
  readonly up: Matrix;
  readonly down: Matrix;
}

export type FeedForwardWeights =
  | { readonly kind: 'dense'; readonly mlp: MlpWeights }
  | ExpertsWeights;

export interface ExpertsWeights {
  readonly kind: 'experts';
  readonly gate: Matrix;
  readonly bias: Vector;
  readonly shared: MlpWeights;
  /** Those of this rank. */
  readonly experts: Experts;
}

/** The parts of a backend that take weights. */
export interface WeightMaker {
  readonly weights: Pick<Backend['weights'], 'matrix' | 'vector'>;
  readonly mla: Pick<Backend['mla'], 'kvUp'>;
  readonly moe: Pick<Backend['moe'], 'experts'>;
  readonly ranks: Pick<Backend['ranks'], 'heads' | 'experts'>;
}

/**
 * Give every tensor of `specs` that is needed to `accept`, cut to the rank's part where there are
 * several, then call `finish` once.
 */
export class WeightBuilder {
  readonly specs: readonly TensorSpec[];
  readonly #config: ModelConfig;
  readonly #backend: WeightMaker;
  readonly #drafts: boolean;
  readonly #roles: Map<string, TensorSpec['role']>;
  readonly #matrices = new Map<string, Matrix>();
  readonly #vectors = new Map<string, Vector>();
  readonly #kvUp = new Map<string, KvUp>();

  /** A model that `drafts` has its first MTP module beside the layers. */
  constructor(config: ModelConfig, backend: WeightMaker, drafts = false) {
    this.#config = config;
    this.#backend = backend;
    this.#drafts = drafts;
    this.specs = [...tensorSpecs(config, drafts)];
    this.#roles = new Map(this.specs.map((spec) => [spec.name, spec.role]));
  }

  accept(tensor: HostTensor): void {
    const { name } = tensor;
    const role = this.#roles.get(name);
    assert(role !== undefined, `the model has no tensor ${name}`);
    if (role === 'vector') {
      this.#vectors.set(name, this.#backend.weights.vector(name, vectorValues(tensor)));
    } else if (role === 'kv-up') {
      const { attention } = this.#config;
      const shape = { ...attention, heads: attention.heads / this.#backend.ranks.heads.size };
      this.#kvUp.set(name, this.#backend.mla.kvUp(tensor, shape));
    } else {
      this.#matrices.set(name, this.#backend.weights.matrix(tensor));
    }
  }

  finish(): ModelWeights {
    const layers = this.#config.layerKinds.map((kind, layer) => this.#layer(layer, kind));
    return {
      embedding: this.#matrix('model.embed_tokens.weight'),
      layers,
      finalNorm: this.#vector('model.norm.weight'),
      head: this.#matrix('lm_head.weight'),
      drafter: this.#drafts ? this.#drafter() : null,
    };
  }

  #drafter(): DrafterWeights {
    const { layers } = this.#config;
    const prefix = `model.layers.${layers}.`;
    return {
      embeddingNorm: this.#vector(`${prefix}enorm.weight`),
      hiddenNorm: this.#vector(`${prefix}hnorm.weight`),
      join: this.#matrix(`${prefix}eh_proj.weight`),
      layer: this.#layer(layers, mtpLayerKind(this.#config)),
      headNorm: this.#vector(`${prefix}shared_head.norm.weight`),
    };
  }

  #layer(layer: number, kind: LayerKind): LayerWeights {
    const prefix = `model.layers.${layer}.`;
    const attention = `${prefix}self_attn.`;
    return {
      inputNorm: this.#vector(`${prefix}input_layernorm.weight`),
      query: this.#query(attention),
      kvA: this.#matrix(`${attention}kv_a_proj_with_mqa.weight`),
      kvNorm: this.#vector(`${attention}kv_a_layernorm.weight`),
      kvB: found(this.#kvUp, `${attention}kv_b_proj.weight`),
      output: this.#matrix(`${attention}o_proj.weight`),
      indexer: kind.indexer === 'full' ? this.#indexer(`${attention}indexer.`) : null,
      postNorm: this.#vector(`${prefix}post_attention_layernorm.weight`),
      feedForward:
        kind.feedForward === 'dense'
          ? { kind: 'dense', mlp: this.#mlp(`${prefix}mlp.`) }
          : this.#experts(`${prefix}mlp.`),
    };
  }

  #query(prefix: string): QueryWeights {
    if (this.#config.attention.queryLatentDim === null) {
      return { kind: 'direct', q: this.#matrix(`${prefix}q_proj.weight`) };
    }
    return {
      kind: 'latent',
      qA: this.#matrix(`${prefix}q_a_proj.weight`),
      qNorm: this.#vector(`${prefix}q_a_layernorm.weight`),
      qB: this.#matrix(`${prefix}q_b_proj.weight`),
    };
  }

  #indexer(prefix: string): IndexerWeights {
    return {
      queries: this.#matrix(`${prefix}wq_b.weight`),
      key: this.#matrix(`${prefix}wk.weight`),
      keyNorm: {
        weight: this.#vector(`${prefix}k_norm.weight`),
        bias: this.#vector(`${prefix}k_norm.bias`),
      },
      headWeights: this.#matrix(`${prefix}weights_proj.weight`),
    };
  }

  #mlp(prefix: string): MlpWeights {
    return {
      gate: this.#matrix(`${prefix}gate_proj.weight`),
      up: this.#matrix(`${prefix}up_proj.weight`),
      down: this.#matrix(`${prefix}down_proj.weight`),
    };
  }

  #experts(prefix: string): FeedForwardWeights {
    const { experts: layout } = this.#config;
    assert(layout !== null, 'a model with layers of experts says how many');
    const { rank, size } = this.#backend.ranks.experts;
    const count = layout.count / size;
    const experts = Array.from({ length: count }, (_, e) =>
      this.#mlp(`${prefix}experts.${rank * count + e}.`),
    );
    return {
      kind: 'experts',
      gate: this.#matrix(`${prefix}gate.weight`),
      bias: this.#vector(`${prefix}gate.e_score_correction_bias`),
      shared: this.#mlp(`${prefix}shared_experts.`),
      experts: this.#backend.moe.experts(experts),
    };
  }

  #matrix(name: string): Matrix {
    return found(this.#matrices, name);
  }

  #vector(name: string): Vector {
    return found(this.#vectors, name);
  }
}

function found<T>(map: Map<string, T>, name: string): T {
  const weight = map.get(name);
  assert(weight !== undefined, `the tensor ${name} was not loaded`);
  return weight;
}

/** A float32 or bfloat16 vector as float32. */
function vectorValues(tensor: HostTensor): Float32Array {
  const copy = tensor.bytes.slice();
  if (tensor.dtype === 'F32') return new Float32Array(copy.buffer);
  assert(tensor.dtype === 'BF16', `${tensor.name} is a vector of ${tensor.dtype}`);
  return bf16ToF32(new Uint16Array(copy.buffer));
}
