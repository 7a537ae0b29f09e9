/** Weights in device memory, in the checkpoint's form; kv_b_proj absorbed as well. */
import { checkKvOutputs, matrixShape } from '../../checks.ts';
import { scaleGroup } from '../../numerics.ts';
import type { HeadShape } from '../../shapes.ts';
import type { HostTensor, WeightOps } from '../../weights.ts';
import { CudaAbsorbedKv, CudaMatrix, CudaVector, dtypeCode } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import type { CudaAttention } from './attention.ts';
import type { GemmInputs } from './gemm-inputs.ts';

export class CudaWeights implements WeightOps {
  readonly #context: OpContext;
  readonly #inputs: GemmInputs;
  readonly #attention: CudaAttention;

  constructor(context: OpContext, inputs: GemmInputs, attention: CudaAttention) {
    this.#context = context;
    this.#inputs = inputs;
    this.#attention = attention;
  }

  matrix(source: HostTensor): CudaMatrix {
    const { outputs, inputs } = matrixShape(source);
    const { device, numerics } = this.#context;
    const { name } = source;
    const at = device.allocate(source.bytes.byteLength, 'weight', name);
    device.upload(at, source.bytes);
    const scales = this.#uploadScales(source);
    if (scales !== 0 && numerics.quantizedLinear) this.#inputs.quantizeFor(inputs);
    const dtype = dtypeCode[source.dtype];
    return new CudaMatrix({ name, outputs, inputs }, { at, dtype, scales });
  }

  #uploadScales({ name, scales }: HostTensor): number {
    if (scales === null) return 0;
    const { device } = this.#context;
    const at = device.allocate(scales.byteLength, 'weight', `${name}'s scales`);
    device.upload(at, bytesOf(scales));
    return at;
  }

  vector(name: string, values: Float32Array): CudaVector {
    const { device } = this.#context;
    const at = device.allocate(values.byteLength, 'weight', name);
    device.upload(at, bytesOf(values));
    return new CudaVector(name, values.length, at);
  }

  absorb(
    source: HostTensor,
    shape: Pick<HeadShape, 'heads' | 'nopeDim' | 'valueDim'>,
  ): CudaAbsorbedKv {
    const { device, numerics, defines } = this.#context;
    const { heads, nopeDim: nope, valueDim: value } = shape;
    const { outputs, inputs: latent } = matrixShape(source);
    checkKvOutputs(source.name, outputs, shape);
    this.#attention.sparse.reserveFor(heads, latent);
    const asBf16 =
      source.dtype === 'BF16' || (source.dtype === 'F8_E4M3' && numerics.activations === 'bf16');
    const width = asBf16 ? 2 : 4;
    const toLatent = device.allocate(heads * nope * latent * width, 'weight', source.name);
    const fromLatent = device.allocate(heads * value * latent * width, 'weight', source.name);
    const { at, scales } = this.#uploadBriefly(source);
    device.launch(
      device.kernel('rows', 'absorb', defines),
      { grid: [outputs, 1, 1], threads: 128 },
      {
        source: at,
        scales,
        dtype: dtypeCode[source.dtype],
        scale_columns: Math.ceil(latent / scaleGroup),
        heads,
        nope,
        value,
        latent,
        to_latent: toLatent,
        from_latent: fromLatent,
        as_bf16: asBf16,
      },
    );
    device.synchronize();
    const dtype = asBf16 ? dtypeCode.BF16 : dtypeCode.F32;
    return new CudaAbsorbedKv(
      source.name,
      { heads, nope, value, latent },
      { dtype, toLatent, fromLatent },
    );
  }

  /** The checkpoint's form, where inputs of GEMMs lie: it is needed for one kernel alone. */
  #uploadBriefly({ bytes, scales }: HostTensor): { at: number; scales: number } {
    const { device } = this.#context;
    const place = this.#inputs.borrow(bytes.byteLength, scales?.byteLength ?? 0);
    device.upload(place.at, bytes);
    if (scales === null) return { at: place.at, scales: 0 };
    device.upload(place.scales, bytesOf(scales));
    return place;
  }

  wholeKv(source: HostTensor, shape: HeadShape): CudaMatrix {
    const { prefill } = this.#attention;
    if (prefill.fits(shape)) prefill.reserve(shape);
    return this.matrix(source);
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
