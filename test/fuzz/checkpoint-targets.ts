/**
 * The files of a checkpoint, mutated: each is refused in one line or loads to what its tensors are.
 */
import { readFileSync } from 'node:fs';
import { checkTensorNames } from '../../gpu-worker/model/mla-moe/tensor-names.ts';
import { ConfigError } from '../../gpu-worker/model/config-error.ts';
import { parseModelConfig } from '../../gpu-worker/model/families.ts';
import type { ModelConfig } from '../../gpu-worker/model/mla-moe/config.ts';
import { ropeFrequencies } from '../../gpu-worker/model/mla-moe/rope.ts';
import { tensorSpecs } from '../../gpu-worker/model/mla-moe/tensors.ts';
import { readSamplingDefaults } from '../../gpu-worker/http/request/sampling-defaults.ts';
import { TokenizerError } from '../../gpu-worker/tokenizer/tokenizer-files.ts';
import { createChatTemplate } from '../../gpu-worker/tokenizer/chat-template.ts';
import { openTokenizer } from '../../gpu-worker/tokenizer/tokenizer.ts';
import { checkTensors } from '../../gpu-worker/weights/check-tensors.ts';
import { openCheckpoint } from '../../gpu-worker/weights/checkpoint.ts';
import { readJson, readTokenizerFiles } from '../../gpu-worker/weights/json-files.ts';
import { makeManifest, manifestName } from '../../gpu-worker/weights/manifest-file.ts';
import { PartHasher } from '../../gpu-worker/weights/cache/part-hasher.ts';
import { readTensors } from '../../gpu-worker/weights/read-tensors.ts';
import { CheckpointError } from '../../gpu-worker/weights/source.ts';
import type { WeightSource } from '../../gpu-worker/weights/source.ts';
import { verifyByManifest } from '../../gpu-worker/weights/verified-source.ts';
import { randomConfig } from '../support/weights/checkpoint-config.ts';
import { randomTensors } from '../support/weights/random-checkpoint.ts';
import { pack } from '../support/weights/safetensors-writer.ts';
import type { Random } from '../support/random.ts';
import type { Target } from './fuzz.ts';
import { mutateBytes, mutateText, mutateValue } from './mutate.ts';

type Files = Readonly<Record<string, string | Uint8Array>>;

const config = randomConfig('V3.2 with everything', 5);
const tensors = randomTensors(config, { seed: 5, dtype: 'BF16' });
/** A GLM config has keys of its own that say what each layer is. */
const glm = {
  ...randomConfig('GLM with a selection of every second layer', 5),
  index_topk_pattern: 'FSF',
  rope_interleave: true,
};
const glmTensors = pack(randomTensors(glm, { seed: 5, dtype: 'BF16' }));
const shards = [tensors.filter((_, i) => i % 2 === 0), tensors.filter((_, i) => i % 2 === 1)];
const index = {
  metadata: { total_size: 1 },
  weight_map: Object.fromEntries(
    shards.flatMap((own, shard) => own.map(({ name }) => [name, `${shard}.safetensors`])),
  ),
};
const whole: Files = {
  'config.json': JSON.stringify(config),
  'model.safetensors.index.json': JSON.stringify(index),
  '0.safetensors': pack(shards[0] ?? []),
  '1.safetensors': pack(shards[1] ?? []),
};
const tiny = new URL('../../gpu-worker/models/tiny/', import.meta.url);
const tokenizerJson: unknown = JSON.parse(readFileSync(new URL('tokenizer.json', tiny), 'utf8'));
const tokenizerConfig: unknown = JSON.parse(
  readFileSync(new URL('tokenizer_config.json', tiny), 'utf8'),
);

function sourceOf(files: Files): WeightSource {
  const bytesOf = new Map(
    Object.entries(files).map(([name, content]) => [name, Buffer.from(content)]),
  );
  return {
    location: '/checkpoint',
    files: [...bytesOf].map(([name, { length }]) => ({ name, bytes: length })),
    partBytes: 65_536,
    parallelParts: 2,
    async read(name, start, into) {
      const bytes = bytesOf.get(name);
      if (bytes === undefined || start + into.length > bytes.length) {
        throw new CheckpointError(`${name} ends before`);
      }
      into.set(bytes.subarray(start, start + into.length));
    },
    async verify() {},
    async [Symbol.asyncDispose]() {},
  };
}

/** Checks that a faulty file of a checkpoint is refused in one line, by one of these errors. */
async function refusing(open: () => Promise<void>): Promise<void> {
  try {
    await open();
  } catch (error) {
    const isExpected =
      error instanceof CheckpointError ||
      error instanceof ConfigError ||
      error instanceof TokenizerError;
    if (!isExpected) throw error;
    if (/call stack|allocation|out of memory/i.test(error.message)) throw error;
  }
}

async function openConfig(source: WeightSource): Promise<ModelConfig> {
  const parsed = parseModelConfig(await readJson(source, 'config.json'));
  const checkpoint = await openCheckpoint(source);
  checkTensorNames(parsed, checkpoint.tensors.keys());
  checkTensors(checkpoint, [...tensorSpecs(parsed)]);
  return parsed;
}

function assertFinite(parsed: ModelConfig): void {
  const { attention, experts, indexer, rope, normEpsilon, contextLength } = parsed;
  const numbers = [
    ...[attention, experts ?? {}, indexer ?? {}].flatMap((part) => Object.values(part)),
    ...ropeFrequencies(rope, attention.ropeDim),
    normEpsilon,
    contextLength,
  ].filter((value) => typeof value === 'number');
  const bad = numbers.find((value) => !Number.isFinite(Math.fround(value)));
  if (bad !== undefined) throw new Error(`a loaded configuration holds ${bad}`);
}

const text = (mutant: unknown): string => String(mutant);

const configTarget: Target = {
  name: 'config.json',
  share: 24,
  make: (random) => mutateText(mutateValue(config, random), random),
  feed: (mutant) =>
    refusing(async () => {
      const parsed = await openConfig(sourceOf({ ...whole, 'config.json': text(mutant) }));
      assertFinite(parsed);
      if (parsed.layers !== config.num_hidden_layers) throw new Error('it has other layers');
    }),
};

function glmFiles(configJson: string): Files {
  return { 'config.json': configJson, 'model.safetensors': glmTensors };
}

const glmConfigTarget: Target = {
  name: 'config.json of GLM',
  share: 10,
  make: (random) => mutateText(mutateValue(glm, random), random),
  feed: (mutant) =>
    refusing(async () => {
      const parsed = await openConfig(sourceOf(glmFiles(text(mutant))));
      assertFinite(parsed);
      if (parsed.layers !== glm.num_hidden_layers) throw new Error('it has other layers');
    }),
};

const headerTarget: Target = {
  name: 'safetensors header',
  share: 22,
  make(random) {
    const shard = whole['0.safetensors'];
    const bytes = Buffer.from(shard ?? '');
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    const data = bytes.subarray(8 + headerBytes);
    if (random.integer(0, 2) === 0) {
      const head = mutateBytes(bytes.subarray(0, 8 + headerBytes), random);
      return Buffer.concat([head, data]);
    }
    const json: unknown = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes));
    const header = Buffer.from(mutateText(mutateValue(json, random), random));
    const length = Buffer.alloc(8);
    const claims = [
      BigInt(header.length),
      BigInt(header.length),
      0n,
      1n,
      2n ** 40n,
      2n ** 64n - 1n,
    ];
    length.writeBigUInt64LE(random.choose(claims));
    return Buffer.concat([length, header, data]);
  },
  feed: (mutant) =>
    refusing(async () => {
      if (!(mutant instanceof Uint8Array)) throw new Error('the mutant is no file');
      await openConfig(sourceOf({ ...whole, '0.safetensors': mutant }));
    }),
};

const indexTarget: Target = {
  name: 'safetensors index',
  share: 14,
  make: (random) => mutateText(mutateValue(index, random), random),
  feed: (mutant) =>
    refusing(async () => {
      const files = { ...whole, 'model.safetensors.index.json': text(mutant) };
      await openConfig(sourceOf(files));
    }),
};

const manifest = await makeManifest(sourceOf(whole), { partBytes: 20_000 });
const names = tensors.map(({ name }) => name);

/** The bytes of some tensor, as they have to be whenever they load. */
const firstTensor = Buffer.from(tensors[0]?.bytes ?? []).toString('base64');

const manifestTarget: Target = {
  name: 'manifest, and bits of the files beside it',
  share: 12,
  make(random) {
    if (random.integer(0, 1) === 0) {
      return { ...whole, [manifestName]: mutateText(mutateValue(manifest, random), random) };
    }
    const name = random.choose(Object.keys(whole));
    const damaged = mutateBytes(Buffer.from(whole[name] ?? ''), random);
    return { ...whole, [name]: damaged, [manifestName]: JSON.stringify(manifest) };
  },
  feed: (mutant) =>
    refusing(async () => {
      // Made just above.
      const source = await verifyByManifest(sourceOf(mutant as Files), new PartHasher());
      await readJson(source, 'config.json');
      const checkpoint = await openCheckpoint(source);
      const specs = names.map((name) => ({
        name,
        shape: checkpoint.tensors.get(name)?.shape ?? [],
        role: 'matrix' as const,
        use: 'needed' as const,
      }));
      for await (const tensor of readTensors(checkpoint, specs)) {
        const bytes = Buffer.from(tensor.bytes).toString('base64');
        if (tensor.name === names[0] && bytes !== firstTensor)
          throw new Error('damaged bytes load');
      }
    }),
};

const generation = {
  _from_model_config: true,
  eos_token_id: [1, 2],
  do_sample: true,
  temperature: 0.6,
  top_p: 0.95,
};

const generationTarget: Target = {
  name: 'generation_config.json',
  share: 6,
  make: (random) => mutateText(mutateValue(generation, random), random),
  feed: (mutant) =>
    refusing(async () => {
      const files = { 'generation_config.json': text(mutant) };
      const defaults = readSamplingDefaults(
        await readJson(sourceOf(files), 'generation_config.json'),
      );
      const isRight = Object.values(defaults).every((value) => Number.isFinite(value));
      if (!isRight) throw new Error('a default is no number');
    }),
};

/** The vocabulary is cut to bytes and a few merges, so that a case takes little. */
function smallTokenizer(): unknown {
  const small = structuredClone(tokenizerJson) as {
    model: { vocab: Record<string, number>; merges: unknown[] };
  };
  const { model } = small;
  model.merges = model.merges.slice(0, 20);
  const merged = new Set(model.merges.map((pair) => [pair].flat().join('').replace(' ', '')));
  model.vocab = Object.fromEntries(
    Object.entries(model.vocab).filter(([token]) => token.length === 1 || merged.has(token)),
  );
  return small;
}

const small = smallTokenizer();

const tokenizerTarget: Target = {
  name: 'tokenizer files',
  share: 2,
  make(random: Random) {
    const isMain = random.integer(0, 2) > 0;
    return {
      'tokenizer.json': isMain
        ? mutateText(mutateValue(small, random), random)
        : JSON.stringify(small),
      'tokenizer_config.json': isMain
        ? JSON.stringify(tokenizerConfig)
        : mutateText(mutateValue(tokenizerConfig, random), random),
    };
  },
  feed: (mutant) =>
    refusing(async () => {
      // Made just above.
      const files = await readTokenizerFiles(sourceOf(mutant as Files));
      const tokenizer = openTokenizer(files);
      createChatTemplate(files.tokenizerConfig, tokenizer);
      const tokens = tokenizer.encode('Hello <|user|> wörld 123', { addSpecialTokens: true });
      if (tokens.some((token) => token < 0 || token >= tokenizer.vocabSize)) {
        throw new Error('a token is outside its own vocabulary');
      }
      tokenizer.decode(tokens, { skipSpecial: false });
    }),
};

export const checkpointTargets: readonly Target[] = [
  configTarget,
  glmConfigTarget,
  headerTarget,
  indexTarget,
  manifestTarget,
  generationTarget,
  tokenizerTarget,
];

/** A target that refused what nobody has changed would find nothing. */
export async function checkUnmutated(): Promise<void> {
  assertFinite(await openConfig(sourceOf(whole)));
  assertFinite(await openConfig(sourceOf(glmFiles(JSON.stringify(glm)))));
  await tokenizerTarget.feed({
    'tokenizer.json': JSON.stringify(small),
    'tokenizer_config.json': JSON.stringify(tokenizerConfig),
  });
}
