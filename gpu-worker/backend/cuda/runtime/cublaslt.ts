/**
 * cuBLASLt, where it is installed: products of one weight with many rows, in bf16, or in e4m3 with
 * the weight's 128 x 128 scales and the rows' 1 x 128 scales (cuBLASLt of CUDA 12.9 or later). Its
 * matrices are by columns: our rows x inputs are its inputs x rows, and out = x W^T is its D = A^T
 * B with A = W.
 */
import { strict as assert } from 'node:assert';
import type { Device } from './device.ts';
import type { Handle } from './driver.ts';
import { dtypeCode } from '../handles.ts';
import type { DtypeCode } from '../handles.ts';
import type { LibraryCall } from './launch-queue.ts';
import { loadLibrary } from './libraries.ts';

const workspaceBytes = 32 * 2 ** 20;
/** Fewest rows for which it is asked. */
const rowsMin = 129;
/** Rows that algorithms are chosen for: the same one for any number of rows. */
const nominalRows = 4096;
/** Bytes of cublasLtMatmulHeuristicResult_t, which begins with the algorithm. */
const resultBytes = 96;
/** The first cuBLASLt with scales per 128: of CUDA 12.9. */
const blockScalesVersion = 120_900;

/** C declarations by name without `cublasLt`; all but GetVersion return a status. */
const signatures = {
  Create: '_Out_ uint64_t*',
  Destroy: 'uint64_t',
  MatmulDescCreate: '_Out_ uint64_t*, int, int',
  MatmulDescDestroy: 'uint64_t',
  MatmulDescSetAttribute: 'uint64_t, int, void*, uint64_t',
  MatrixLayoutCreate: '_Out_ uint64_t*, int, uint64_t, uint64_t, int64_t',
  MatrixLayoutSetAttribute: 'uint64_t, int, void*, uint64_t',
  MatrixLayoutDestroy: 'uint64_t',
  MatmulPreferenceCreate: '_Out_ uint64_t*',
  MatmulPreferenceDestroy: 'uint64_t',
  MatmulPreferenceSetAttribute: 'uint64_t, int, void*, uint64_t',
  MatmulAlgoGetHeuristic:
    'uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int, void*, _Out_ int*',
  Matmul:
    'uint64_t, uint64_t, void*, uint64_t, uint64_t, uint64_t, uint64_t, void*, uint64_t, uint64_t, uint64_t, uint64_t, void*, uint64_t, uint64_t, uint64_t',
} as const;
type Call = keyof typeof signatures;

/** Values of the library's enumerations. */
const compute32F = 68;
const dataType = { F32: 0, BF16: 14, E4M3: 28 } as const;
const descAttribute = {
  transA: 3,
  aScale: 17,
  bScale: 18,
  aScaleMode: 31,
  bScaleMode: 32,
} as const;
const scaleMode = { vec128: 4, block128x128: 5 } as const;
const layoutColumns = 3;
const preferenceAttribute = { workspaceBytes: 1, reductionSchemes: 3 } as const;
const invalidValue = 7;
const notSupported = 15;

export interface MatmulShape {
  readonly fp8: boolean;
  readonly rows: number;
  readonly outputs: number;
  readonly inputs: number;
  /** Elements from a row to the next. */
  readonly xStride: number;
  readonly outStride: number;
  readonly outFormat: DtypeCode;
}

/**
 * A product of a weight's shape: arguments are the addresses of w, x, out, of both scales, and
 * rows.
 */
type Matmul = LibraryCall;

/** The memory that the library works in. */
export function takeWorkspace(device: Pick<Device, 'allocate'>): number {
  return device.allocate(workspaceBytes, 'activation', 'the workspace of cuBLASLt');
}

export class CublasLt {
  readonly version: number;
  readonly #device: Device;
  readonly #calls = new Map<Call, (...args: unknown[]) => number>();
  readonly #handle: Handle;
  readonly #preference: Handle;
  readonly #workspace: number;
  readonly #algorithms = new Map<string, Uint8Array | null>();
  readonly #matmuls = new Map<string, Matmul | null>();

  /** @throws CudaMissing without the library. */
  constructor(device: Device) {
    const library = loadLibrary('cublasLt');
    for (const [name, parameters] of Object.entries(signatures)) {
      // The keys of an object literal are its own names.
      this.#calls.set(name as Call, library.func(`int cublasLt${name}(${parameters})`));
    }
    const version: () => number | bigint = library.func('uint64_t cublasLtGetVersion()');
    this.version = Number(version());
    this.#device = device;
    this.#handle = this.#make('Create', []);
    this.#preference = this.#make('MatmulPreferenceCreate', []);
    this.#prefer(preferenceAttribute.workspaceBytes, BigUint64Array.of(BigInt(workspaceBytes)));
    // No sum is split: its order would depend on the algorithm's choice for a number of rows.
    this.#prefer(preferenceAttribute.reductionSchemes, Uint32Array.of(0));
    this.#workspace = takeWorkspace(device);
  }

  /** The product as a call for the launch queue, or null if the library does not compute it. */
  matmul(shape: MatmulShape): Matmul | null {
    if (!this.#fits(shape)) return null;
    const { fp8, outputs, inputs, xStride, outStride, outFormat } = shape;
    const key = [fp8, outputs, inputs, xStride, outStride, outFormat].join(' ');
    const known = this.#matmuls.get(key);
    if (known !== undefined) return known;
    const made = this.#makeMatmul(shape);
    this.#matmuls.set(key, made);
    return made;
  }

  /** Pieces of 16 bytes, and scales that lie as the library reads them: four groups at a time. */
  #fits({ fp8, rows, outputs, inputs, xStride, outStride }: MatmulShape): boolean {
    const aligned = outputs % 16 === 0 && inputs % 16 === 0 && xStride % 16 === 0;
    if (!aligned || outStride % 8 !== 0 || rows < rowsMin) return false;
    return !fp8 || (this.version >= blockScalesVersion && inputs % 512 === 0 && rows % 4 === 0);
  }

  #makeMatmul(shape: MatmulShape): Matmul | null {
    const algorithm = this.#algorithm(shape);
    if (algorithm === null) return null;
    const { desc, layouts } = this.#describe(shape);
    const [one, zero] = [Float32Array.of(1), Float32Array.of(0)];
    return {
      name: `cuBLASLt's product with ${shape.outputs} x ${shape.inputs}`,
      run: ([w = 0, x = 0, out = 0, wScales = 0, xScales = 0, rows = 0]) => {
        if (shape.fp8) {
          this.#describeBy(desc, descAttribute.aScale, BigUint64Array.of(BigInt(wScales)));
          this.#describeBy(desc, descAttribute.bScale, BigUint64Array.of(BigInt(xScales)));
        }
        const [a, b, d] = layouts;
        const columns = BigUint64Array.of(BigInt(rows));
        for (const layout of [b, d]) {
          this.#call('MatrixLayoutSetAttribute', [layout, layoutColumns, columns, 8]);
        }
        const { stream } = this.#device;
        const operands = [w, a, x, b, zero, out, d, out, d];
        const room = [algorithm, this.#workspace, workspaceBytes, stream];
        this.#call('Matmul', [this.#handle, desc, one, ...operands, ...room]);
      },
    };
  }

  /** Chosen once for a weight's shape, so that a row's sums do not depend on the rows beside it. */
  #algorithm(shape: MatmulShape): Uint8Array | null {
    const { fp8, outputs, inputs, outFormat } = shape;
    const key = [fp8, outputs, inputs, outFormat].join(' ');
    const known = this.#algorithms.get(key);
    if (known !== undefined) return known;
    const { desc, layouts } = this.#describe({ ...shape, rows: nominalRows });
    const [a, b, d] = layouts;
    const result = new Uint8Array(resultBytes);
    const found: [number] = [0];
    const args = [this.#handle, desc, a, b, d, d, this.#preference, 1, result, found];
    const status = this.#raw('MatmulAlgoGetHeuristic', args);
    const refused = status === invalidValue || status === notSupported;
    assert(status === 0 || refused, `cuBLASLt's heuristic failed with ${status}`);
    for (const layout of layouts) this.#raw('MatrixLayoutDestroy', [layout]);
    this.#raw('MatmulDescDestroy', [desc]);
    const algorithm = status === 0 && found[0] > 0 ? result : null;
    this.#algorithms.set(key, algorithm);
    return algorithm;
  }

  #describe(shape: MatmulShape): { desc: Handle; layouts: readonly [Handle, Handle, Handle] } {
    const { fp8, rows, outputs, inputs, xStride, outStride, outFormat } = shape;
    const desc = this.#make('MatmulDescCreate', [compute32F, dataType.F32]);
    this.#describeBy(desc, descAttribute.transA, Int32Array.of(1));
    if (fp8) {
      this.#describeBy(desc, descAttribute.aScaleMode, Int32Array.of(scaleMode.block128x128));
      this.#describeBy(desc, descAttribute.bScaleMode, Int32Array.of(scaleMode.vec128));
      // Without addresses of scales, whatever they are, no algorithm is found.
      const place = BigUint64Array.of(BigInt(this.#workspace));
      this.#describeBy(desc, descAttribute.aScale, place);
      this.#describeBy(desc, descAttribute.bScale, place);
    }
    const from = fp8 ? dataType.E4M3 : dataType.BF16;
    const to = outFormat === dtypeCode.F32 ? dataType.F32 : dataType.BF16;
    return {
      desc,
      layouts: [
        this.#make('MatrixLayoutCreate', [from, inputs, outputs, inputs]),
        this.#make('MatrixLayoutCreate', [from, inputs, rows, xStride]),
        this.#make('MatrixLayoutCreate', [to, outputs, rows, outStride]),
      ],
    };
  }

  #describeBy(desc: Handle, attribute: number, value: Int32Array | BigUint64Array): void {
    this.#call('MatmulDescSetAttribute', [desc, attribute, value, value.byteLength]);
  }

  #prefer(attribute: number, value: Uint32Array | BigUint64Array): void {
    const args = [this.#preference, attribute, value, value.byteLength];
    this.#call('MatmulPreferenceSetAttribute', args);
  }

  #raw(name: Call, args: readonly unknown[]): number {
    const call = this.#calls.get(name);
    assert(call !== undefined, `cuBLASLt has no ${name}`);
    return call(...args);
  }

  #call(name: Call, args: readonly unknown[]): void {
    const status = this.#raw(name, args);
    if (status !== 0) throw new Error(`cublasLt${name} failed with ${status}`);
  }

  #make(name: Call, args: readonly unknown[]): Handle {
    const out: [Handle] = [0];
    this.#call(name, [out, ...args]);
    return out[0];
  }

  close(): void {
    this.#raw('MatmulPreferenceDestroy', [this.#preference]);
    this.#raw('Destroy', [this.#handle]);
  }
}
