/** generation_config.json: what requests that state nothing are sampled with. */
import { cpSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  plainSampling,
  readSamplingDefaults,
} from '../../../../gpu-worker/http/request/sampling-defaults.ts';
import { openText } from '../../../../gpu-worker/open-text.ts';
import { defaultSourceSettings } from '../../../../gpu-worker/weights/open-source.ts';
import { answering, httpWorker } from '../../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../../support/worker/http-worker.ts';
import { useStore } from '../../../support/weights/s3-checkpoint.ts';
import { putDirectory, startS3Double } from '../../../support/weights/s3-double.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const generation = {
  _from_model_config: true,
  bos_token_id: 0,
  eos_token_id: [1, 2],
  do_sample: true,
  temperature: 0.6,
  top_p: 0.95,
  top_k: 20,
  min_p: 0.01,
  repetition_penalty: 1.05,
  transformers_version: '5.3.0',
};
const defaults = {
  temperature: 0.6,
  top_p: 0.95,
  top_k: 20,
  min_p: 0.01,
  repetition_penalty: 1.05,
};

describe('the file', () => {
  test('gives its values, and OpenAI’s where it has none', () => {
    expect(readSamplingDefaults(generation)).toEqual(defaults);
    for (const nothing of [null, undefined, {}, { temperature: null, top_p: null, top_k: null }]) {
      expect(readSamplingDefaults(nothing)).toEqual(plainSampling);
    }
  });

  test('that says not to sample makes greedy the default', () => {
    const greedy = { ...generation, do_sample: false };
    expect(readSamplingDefaults(greedy)).toEqual({ ...defaults, temperature: 0 });
  });

  test.each([
    ['temperature', -0.1],
    ['temperature', 'hot'],
    ['temperature', 2.1],
    ['top_p', 1.5],
    ['top_p', -1],
    ['top_k', 0.5],
    ['top_k', -2],
    ['min_p', 2],
    ['repetition_penalty', 0],
    ['do_sample', 'yes'],
    ['eos_token_id', [1, -1]],
    ['eos_token_id', 'end'],
  ])('is refused by the key %s when it is %j', async (key, value) => {
    const directory = tinyWith({ [key]: value });
    await expect(openText(directory)).rejects.toThrow(`generation_config.json: ${key}`);
  });
});

const tiny = fileURLToPath(new URL('../../../../gpu-worker/models/tiny', import.meta.url));
const folder = temporaryDirectory();
let copies = 0;

/** The text files of the tiny model beside this generation_config.json. */
function tinyWith(config: object): string {
  const directory = join(folder, `tiny-${copies++}`);
  for (const name of readdirSync(tiny).filter((each) => /^(tokenizer|config).*json$/.test(each))) {
    cpSync(join(tiny, name), join(directory, name), { recursive: true });
  }
  writeFileSync(join(directory, 'generation_config.json'), JSON.stringify(config));
  return directory;
}

test('it is read from a directory, a file:// URL and a store', async () => {
  const directory = tinyWith(generation);
  await using double = await startS3Double();
  useStore(double.url);
  putDirectory(double, directory, 'tiny');
  const cacheDirectory = join(folder, 'cache');
  for (const location of [directory, pathToFileURL(directory).href, 's3://models/tiny']) {
    const text = await openText(location, {
      weights: { ...defaultSourceSettings, cacheDirectory },
    });
    expect(text.samplingDefaults).toEqual(defaults);
    expect(text.tokenizer.endTokens).toEqual([1, 2]);
  }
});

describe('a worker', () => {
  const open = (): Promise<HttpWorker> =>
    httpWorker({ script: answering('Hi.'), model: { samplingDefaults: defaults } });

  async function samplingOf(worker: HttpWorker, route: string, body: object) {
    const response = await worker.app.request(route, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tiny', ...body }),
    });
    expect(response.status).toBe(200);
    return worker.engine.requests.at(-1)?.sampling;
  }

  const chat = { messages: [{ role: 'user', content: 'Hi' }] };
  test.each([
    ['/v1/chat/completions', chat],
    ['/v1/completions', { prompt: 'Hi' }],
  ])('samples with them on %s what a request leaves open', async (route, body) => {
    await using worker = await open();
    const expected = {
      temperature: 0.6,
      topP: 0.95,
      topK: 20,
      minP: 0.01,
      repetitionPenalty: 1.05,
      frequencyPenalty: 0,
    };
    expect(await samplingOf(worker, route, body)).toMatchObject(expected);
    const unstated = { temperature: null, top_p: null, top_k: null };
    expect(await samplingOf(worker, route, { ...body, ...unstated })).toMatchObject(expected);
  });

  test('lets a request decide, with zeros and ones too', async () => {
    await using worker = await open();
    const stated = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1 };
    expect(await samplingOf(worker, '/v1/chat/completions', { ...chat, ...stated })).toMatchObject({
      temperature: 0,
      topP: 1,
      topK: 0,
      minP: 0,
      repetitionPenalty: 1,
    });
    expect(
      await samplingOf(worker, '/v1/chat/completions', { ...chat, temperature: 1 }),
    ).toMatchObject({ temperature: 1, topP: 0.95 });
  });

  test('shows them in its list of models', async () => {
    await using worker = await open();
    const list = await (await worker.app.request('/v1/models')).json();
    expect(list.data[0].default_sampling_params).toEqual(defaults);
  });
});
