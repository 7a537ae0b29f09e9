/** A small checkpoint in many parts, and what a load of it comes to. */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { at } from '../../../gpu-worker/at.ts';
import type { TensorSpec } from '../../../gpu-worker/weights/tensor-spec.ts';
import { openCheckpoint } from '../../../gpu-worker/weights/checkpoint.ts';
import type { s3Tuning } from '../../../gpu-worker/weights/open-source.ts';
import { readTensors } from '../../../gpu-worker/weights/read-tensors.ts';
import type { OnProgress } from '../../../gpu-worker/weights/read-tensors.ts';
import type { WeightSource } from '../../../gpu-worker/weights/source.ts';
import { credentials } from './s3-double.ts';
import { seededRandom } from '../random.ts';
import { pack } from './safetensors-writer.ts';
import type { TensorToWrite } from './safetensors-writer.ts';

/**
 * Small parts and short waits between attempts, so that tests of many parts and faults are quick. A
 * busy machine may stand still for a second, which is no stall.
 */
export const quickTuning: typeof s3Tuning = {
  partBytes: 4096,
  stallMs: 30_000,
  retries: { attemptsMax: 6, baseMs: 5, waitMaxMs: 20 },
};

/** Points the AWS settings of this process at a store, and at nothing else of the machine. */
export function useStore(url: string, keys: typeof credentials = credentials): void {
  process.env.AWS_ENDPOINT_URL_S3 = url;
  process.env.AWS_REGION = 'us-east-1';
  process.env.AWS_ACCESS_KEY_ID = keys.accessKeyId;
  process.env.AWS_SECRET_ACCESS_KEY = keys.secretAccessKey;
  process.env.AWS_EC2_METADATA_DISABLED = 'true';
  process.env.AWS_CONFIG_FILE = process.env.AWS_SHARED_CREDENTIALS_FILE = '/nowhere/aws';
  delete process.env.AWS_SESSION_TOKEN;
  delete process.env.AWS_PROFILE;
}

/** Two shards of small, odd and large tensors, some fp8 with scales in the other shard. */
export function writePartedCheckpoint(directory: string, seed = 1): string {
  const random = seededRandom(seed);
  const bytes = (count: number) => Uint8Array.from({ length: count }, () => random.integer(0, 119));
  const shards: TensorToWrite[][] = [[], []];
  for (let i = 0; i < 24; i++) {
    const [own, other] = [at(shards, i % 2), at(shards, 1 - (i % 2))];
    if (i % 6 === 5) {
      const scale = new Uint8Array(Float32Array.of(i + 1).buffer);
      const name = `t${i}.weight`;
      own.push({ name, dtype: 'F8_E4M3', shape: [8, 100], bytes: bytes(800) });
      other.push({
        name: `${name}_scale_inv`,
        dtype: 'F32',
        shape: [1, 1],
        bytes: scale,
      });
    } else {
      const rows = i % 8 === 0 ? 9001 : random.integer(1, 1500);
      own.push({
        name: `t${i}`,
        dtype: 'BF16',
        shape: [rows, 1],
        bytes: bytes(2 * rows),
      });
    }
  }
  const weightMap: Record<string, string> = {};
  mkdirSync(directory, { recursive: true });
  for (const [i, tensors] of shards.entries()) {
    const file = `model-0000${i + 1}-of-00002.safetensors`;
    for (const { name } of tensors) weightMap[name] = file;
    writeFileSync(join(directory, file), pack(tensors));
  }
  writeFileSync(join(directory, 'config.json'), `{"seed":${seed}}`);
  writeFileSync(
    join(directory, 'model.safetensors.index.json'),
    JSON.stringify({ weight_map: weightMap }),
  );
  return directory;
}

/**
 * Loads all tensors; a SHA-256 over their names, dtypes, scales and bytes, whatever their order.
 */
export async function digestOf(source: WeightSource, onProgress?: OnProgress): Promise<string> {
  const checkpoint = await openCheckpoint(source);
  const specs = [...checkpoint.tensors.values()]
    .filter(({ name }) => !name.endsWith('_scale_inv'))
    .map(({ name, shape }): TensorSpec => ({ name, shape, role: 'matrix', use: 'needed' }));
  const lines: string[] = [];
  for await (const tensor of readTensors(checkpoint, specs, { onProgress })) {
    const hash = createHash('sha256').update(tensor.bytes).digest('hex');
    lines.push(`${tensor.name} ${tensor.dtype} ${String(tensor.scales)} ${hash}`);
  }
  return createHash('sha256').update(lines.toSorted().join('\n')).digest('hex');
}
