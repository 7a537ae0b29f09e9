/** The two ways to compute: exact, and as deployed. */
import type { Numerics } from '../../backend/numerics.ts';
import type { ModelConfig } from './config.ts';
import { ConfigError } from '../config-error.ts';

export type NumericsName = 'f32' | 'fp8';

/**
 * The formats in which `fp8` numerics keep latents: 656 bytes a token of 512 + 64 dimensions, or
 * 1,152.
 */
export type LatentFormat = 'fp8' | 'bf16';

/**
 * `f32` computes everything in float32: the mode that is compared with the golden cases. `fp8` is
 * the deployed model's arithmetic (docs/engine-spec.md#number-formats): bfloat16 activations, fp8
 * linear layers where the checkpoint has fp8 weights, an fp8 latent cache and Hadamard-transformed
 * fp8 index keys.
 * @param latents of the cache, where the numerics leave a choice; fp8 unless given
 * @throws ConfigError if the model can't be computed that way.
 */
export function chooseNumerics(
  name: NumericsName,
  config: ModelConfig,
  latents?: LatentFormat,
): Numerics {
  if (name === 'f32') {
    if (latents !== undefined) {
      throw new ConfigError(`f32 numerics keep latents in float32, not in ${latents}`);
    }
    return {
      activations: 'f32',
      quantizedLinear: false,
      latentCache: 'f32',
      indexKeys: 'f32',
      hadamard: false,
      scaleFormat: 'f32',
    };
  }
  const indexDim = config.indexer?.dim ?? 1;
  if (!Number.isInteger(Math.log2(indexDim))) {
    throw new ConfigError(
      `index_head_dim must be a power of two for fp8 numerics, because of the Hadamard transform; it is ${indexDim}`,
    );
  }
  return {
    activations: 'bf16',
    quantizedLinear: true,
    latentCache: latents ?? 'fp8',
    indexKeys: 'fp8',
    hadamard: true,
    // Matters to fp8 weights alone, whose checkpoint says it.
    scaleFormat: config.quantization === null ? 'ue8m0' : config.quantization.scaleFormat,
  };
}
