/**
 * Brings weights into the form that the kernels read: panels of eight outputs, [inputs][8] each.
 */
import { at, missing } from '../../at.ts';
import { checkKvOutputs, matrixShape } from '../checks.ts';
import { scaleGroup } from '../numerics.ts';
import type { HostTensor, WeightDtype } from '../weights.ts';
import type { Arena } from './arena.ts';
import { decodeE4m3, encodeBf16 } from './codecs.ts';
import { CpuAbsorbedKv, CpuMatrix } from './handles.ts';
import { dtypeBf16, dtypeE4m3, dtypeF32, matrixBytes } from './kernels/op-codes.ts';

const panelOutputs = 8;

/** Elements as integers of their width; the bits are all that packing moves. */
type Elements = Uint8Array | Uint16Array | Uint32Array;

interface DenseWeight {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly outputs: number;
  readonly inputs: number;
  /** Element (output, input) lies at offset + output * outputStride + input * inputStride. */
  readonly elements: Elements;
  readonly offset: number;
  readonly outputStride: number;
  readonly inputStride: number;
  readonly scales: Float32Array | null;
}

/** Copies a checkpoint tensor [outputs, inputs] into the arena. */
export function packMatrix(arena: Arena, source: HostTensor): CpuMatrix {
  const { outputs, inputs } = matrixShape(source);
  return pack(arena, {
    name: source.name,
    dtype: source.dtype,
    outputs,
    inputs,
    elements: elementsOf(source),
    offset: 0,
    outputStride: inputs,
    inputStride: 1,
    scales: source.scales,
  });
}

/**
 * kv_b_proj [heads * (nope + value), latent] as two small matrices per head: its nope rows
 * transposed (nope -> latent) and its value rows (latent -> value). An fp8 source is decoded with
 * its scales, and rounded to bfloat16 where activations are (the published inference code absorbs a
 * bf16 weight).
 */
export function packAbsorbed(
  arena: Arena,
  source: HostTensor,
  options: { heads: number; nopeDim: number; valueDim: number; roundDecoded: boolean },
): CpuAbsorbedKv {
  const { heads, nopeDim, valueDim } = options;
  const { outputs, inputs } = matrixShape(source);
  checkKvOutputs(source.name, outputs, options);
  const { dtype, elements } = decodedElements(source, options.roundDecoded);
  const toLatent: CpuMatrix[] = [];
  const fromLatent: CpuMatrix[] = [];
  for (let head = 0; head < heads; head++) {
    const shared = { name: source.name, dtype, elements, scales: null };
    const offset = head * (nopeDim + valueDim) * inputs;
    const nope = { outputs: inputs, inputs: nopeDim, offset, outputStride: 1, inputStride: inputs };
    toLatent.push(pack(arena, { ...shared, ...nope }));
    const value = { outputs: valueDim, inputs, outputStride: inputs, inputStride: 1 };
    fromLatent.push(pack(arena, { ...shared, ...value, offset: offset + nopeDim * inputs }));
  }
  return new CpuAbsorbedKv(source.name, toLatent, fromLatent);
}

function elementsOf(source: HostTensor): Elements {
  if (source.dtype === 'F8_E4M3') return source.bytes;
  const width = source.dtype === 'F32' ? 4 : 2;
  // A view needs an aligned start, which a tensor inside a file does not have.
  const aligned = source.bytes.byteOffset % width === 0 ? source.bytes : source.bytes.slice();
  const { buffer, byteOffset, byteLength } = aligned;
  return width === 4
    ? new Uint32Array(buffer, byteOffset, byteLength / 4)
    : new Uint16Array(buffer, byteOffset, byteLength / 2);
}

function decodedElements(
  source: HostTensor,
  roundDecoded: boolean,
): { dtype: WeightDtype; elements: Elements } {
  const { scales } = source;
  if (scales === null) return { dtype: source.dtype, elements: elementsOf(source) };
  const inputs = at(source.shape, 1);
  const columns = Math.ceil(inputs / scaleGroup);
  const values = Float32Array.from(source.bytes, (code, i) => {
    const row = Math.floor(i / inputs / scaleGroup);
    const column = Math.floor((i % inputs) / scaleGroup);
    return decodeE4m3(code) * (scales[row * columns + column] ?? missing());
  });
  if (!roundDecoded) return { dtype: 'F32', elements: new Uint32Array(values.buffer) };
  return { dtype: 'BF16', elements: Uint16Array.from(values, encodeBf16) };
}

function pack(arena: Arena, weight: DenseWeight): CpuMatrix {
  const { name, outputs, inputs, elements, outputStride, inputStride, scales } = weight;
  const panels = Math.ceil(outputs / panelOutputs);
  const width = elements.BYTES_PER_ELEMENT;
  const count = panels * inputs * panelOutputs;
  const place = arena.allocate(count * width, 'weight', name);
  const packed = elementsAt(arena, place, count, width);
  for (let output = 0; output < outputs; output++) {
    let to = Math.floor(output / panelOutputs) * inputs * panelOutputs + (output % panelOutputs);
    let from = weight.offset + output * outputStride;
    for (let input = 0; input < inputs; input++) {
      packed[to] = elements[from] ?? missing();
      to += panelOutputs;
      from += inputStride;
    }
  }
  return describe(arena, weight, { at: place, scales });
}

function elementsAt(arena: Arena, start: number, count: number, width: number): Elements {
  const { buffer } = arena.memory;
  if (width === 4) return new Uint32Array(buffer, start, count);
  return width === 2 ? new Uint16Array(buffer, start, count) : new Uint8Array(buffer, start, count);
}

/** Writes the weight's scales and its MatrixView (kernels/gemm.ts). */
function describe(
  arena: Arena,
  weight: DenseWeight,
  place: { at: number; scales: Float32Array | null },
): CpuMatrix {
  const { scales } = place;
  const scalesAt =
    scales === null ? 0 : arena.allocate(scales.byteLength, 'weight', `${weight.name}'s scales`);
  if (scales !== null) arena.f32.set(scales, scalesAt / 4);
  const view = arena.allocate(matrixBytes, 'weight', `${weight.name}'s description`);
  const dtype = { F32: dtypeF32, BF16: dtypeBf16, F8_E4M3: dtypeE4m3 }[weight.dtype];
  const scaleColumns = Math.ceil(weight.inputs / scaleGroup);
  arena.u32.set([place.at, dtype, weight.outputs, weight.inputs, scalesAt, scaleColumns], view / 4);
  return new CpuMatrix(weight, { view, scaled: scales !== null });
}
