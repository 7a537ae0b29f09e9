/** cuBLASLt's products against our own kernels, alone, in graphs, and repeated. */
import { strict as assert } from 'node:assert';
import { CublasLt } from '../../../../../gpu-worker/backend/cuda/runtime/cublaslt.ts';
import { CudaMatrix, CudaTensor, asCuda } from '../../../../../gpu-worker/backend/cuda/handles.ts';
import { unscaled } from '../../../../../gpu-worker/backend/cuda/ops/gemm-inputs.ts';
import { expectClose, expectSame, tensorCoreTolerance, test } from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import { fp8Numerics, randomFloats, randomWeight } from '../../../../support/gpu/backends.ts';
import { openCudaTested, toBf16 } from '../../../../support/gpu/tested.ts';

const random = seededRandom(Number(process.env['SEED'] ?? 1));
const { backend, filled, poison } = await openCudaTested(fp8Numerics, { rowsMax: 512 });
const { device } = backend.context;
const library = new CublasLt(device);
console.log(`cuBLASLt ${library.version}`);

for (const { rows, inputs, outputs } of [
  { rows: 132, inputs: 512, outputs: 256 },
  { rows: 256, inputs: 1536, outputs: 4096 },
  { rows: 512, inputs: 7168, outputs: 2048 },
]) {
  for (const dtype of ['F8_E4M3', 'BF16'] as const) {
    await test(`${rows} x ${inputs} by ${dtype} ${outputs}`, () => {
      const weight = randomWeight(random, { outputs, inputs, dtype });
      const matrix = asCuda(CudaMatrix, backend.weights.matrix(weight));
      const x = asCuda(CudaTensor, filled(toBf16(randomFloats(random, rows * inputs)), inputs));
      const out = asCuda(CudaTensor, backend.memory.tensor(rows, outputs));
      const ours = backend.memory.tensor(rows, outputs);
      backend.gemm.linear(ours, x, matrix, rows);
      const expected = backend.memory.read(ours, rows).slice();
      const scaled = matrix.scales !== 0;
      const plain = { at: x.at, stride: x.stride, columns: inputs, rowIndices: 0 };
      const input = scaled
        ? backend.gemm.inputs.prepare(plain, { ...matrix, scaled }, { rows, exact: false })
        : unscaled(x);
      const call = library.matmul({
        fp8: scaled,
        rows,
        outputs,
        inputs,
        xStride: input.stride,
        outStride: out.stride,
        outFormat: out.format,
      });
      assert(call !== null, 'cuBLASLt does not compute this product');
      const args = [matrix.at, input.at, out.at, matrix.scales, input.scales, rows];
      let first: Float32Array | null = null;
      for (let run = 0; run < 20; run++) {
        poison(out);
        // A list this long runs as a graph from its second time on.
        for (let i = 0; i < 10; i++) device.queue.pushCall(call, args);
        const actual = backend.memory.read(out, rows);
        if (first === null) expectClose(actual, expected, tensorCoreTolerance);
        else expectSame(actual, first, `run ${run}`);
        first ??= actual.slice();
      }
      // Fewer rows: of these the scales lie closer, so they are quantised again.
      const few = 132;
      const again = scaled
        ? backend.gemm.inputs.prepare(plain, { ...matrix, scaled }, { rows: few, exact: false })
        : input;
      poison(out);
      device.queue.pushCall(call, [matrix.at, again.at, out.at, matrix.scales, again.scales, few]);
      const prefix = (first ?? expected).slice(0, few * outputs);
      expectSame(backend.memory.read(out, few), prefix, 'some of the rows');
    });
  }
}
await test('a product that the library does not compute is refused, not tried', () => {
  const shape = { rows: 130, inputs: 512, outputs: 250, xStride: 512, outStride: 256 };
  assert.equal(library.matmul({ ...shape, fp8: true, outFormat: 1 }), null);
});
library.close();
await backend.close();

await test('a backend that may use the library has the same products', async () => {
  const [own_, with_] = await Promise.all(
    [false, true].map((cublasLt) => openCudaTested(fp8Numerics, { rowsMax: 512, cublasLt })),
  );
  assert(own_ !== undefined && with_ !== undefined, 'two backends were opened');
  const { rows, inputs, outputs } = { rows: 260, inputs: 1024, outputs: 512 };
  const weight = randomWeight(random, { outputs, inputs, dtype: 'F8_E4M3' });
  const x = toBf16(randomFloats(random, rows * inputs));
  const [expected, actual] = [own_, with_].map((tested) => {
    const out = tested.poison(tested.backend.memory.tensor(rows, outputs));
    const matrix = tested.backend.weights.matrix(weight);
    tested.backend.gemm.linear(out, tested.filled(x, inputs), matrix, rows);
    return tested.backend.memory.read(out, rows).slice();
  });
  assert(expected !== undefined && actual !== undefined, 'both have a result');
  expectClose(actual, expected, tensorCoreTolerance);
  await own_.backend.close();
  await with_.backend.close();
});
