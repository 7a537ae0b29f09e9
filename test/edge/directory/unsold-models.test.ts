import { expect, test } from 'vitest';
import type { Log } from '../../../infra/log.ts';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import type { ModelRecord } from '../../../edge/directory/directory-contract.ts';
import type { ServedModel } from '../../../edge/fleet/worker-contract.ts';
import type { Price } from '../../../edge/money.ts';
import { createUnsoldLog, unsoldModels } from '../../../edge/directory/unsold-models.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';

const price: Price = { id: 'p', inputCached: 1, inputUncached: 1, output: 1 };
const unknown = { contextLength: null, revision: null, tokenizer: null };

function catalogue() {
  const listed: ModelRecord[] = [];
  const priced = new Set<string>();
  const logged: Record<string, unknown>[] = [];
  const clock = manualClock();
  const directory = {
    models: async () => listed,
    priceAt: async (id: string) => (priced.has(id) ? price : null),
  };
  const list = (id: string): void => {
    const words = { revision: 'r', tokenizer: 't', ownedBy: 'o' };
    listed.push({ id, contextLength: 1, createdAtMs: 0, ...words });
  };
  const log: Log = (_, event, fields) => void logged.push({ event, ...fields });
  return { listed, list, priced, logged, clock, directory, log };
}

test('a model stays unsold until it is listed and has a price', async () => {
  const shop = catalogue();
  const served: ServedModel[] = [
    { id: "it's/new", contextLength: 8192, revision: 'r1', tokenizer: 't1' },
    { id: 'qwen', ...unknown },
    { id: 'qwen', ...unknown },
  ];
  expect(await unsoldModels(served, shop)).toEqual([
    {
      model: "it's/new",
      lacks: 'directory entry',
      command: `npm run --silent admin -- models put 'it'\\''s/new' 8192 r1 t1`,
    },
    {
      model: 'qwen',
      lacks: 'directory entry',
      command: 'npm run --silent admin -- models put qwen CONTEXT_LENGTH 1 qwen',
    },
  ]);
  shop.list('qwen');
  expect(await unsoldModels(served.slice(1), shop)).toEqual([
    {
      model: 'qwen',
      lacks: 'price',
      command: 'npm run --silent admin -- prices add qwen CACHED_USD INPUT_USD OUTPUT_USD',
    },
  ]);
  shop.priced.add('qwen');
  expect(await unsoldModels(served.slice(1), shop)).toEqual([]);
});

test('what stays unsold is logged once, not at each heartbeat, and again when it was sold between', async () => {
  const shop = catalogue();
  const logUnsold = createUnsoldLog(shop);
  const checks: Promise<void>[] = [];
  const fleet = new LocalFleet({
    clock: shop.clock,
    onAnnounced: (worker, served) => void checks.push(logUnsold(worker, served)),
  });
  const beat = async (count: number): Promise<void> => {
    for (let at = 0; at < count; at++) {
      await fleet.heartbeat(heartbeatOf({ id: 'a' }));
      await fleet.heartbeat(heartbeatOf({ id: 'b' }));
      await Promise.all(checks.splice(0));
      shop.clock.advance(5_000);
    }
  };
  const [model] = heartbeatOf({ id: 'a' }).models;
  const id = model?.id ?? '';
  await beat(1);
  expect(shop.logged).toEqual([]);
  await beat(5);
  expect(shop.logged).toMatchObject([
    { event: 'model-unsold', worker: 'a', model: id, lacks: 'directory entry' },
  ]);
  shop.list(id);
  shop.priced.add(id);
  await beat(2);
  shop.priced.delete(id);
  await beat(5);
  expect(shop.logged).toMatchObject([{ lacks: 'directory entry' }, { lacks: 'price' }]);
});

test('a directory that cannot be read is logged, and stops no heartbeat', async () => {
  const shop = catalogue();
  const directory = { ...shop.directory, models: () => Promise.reject(new Error('it is away')) };
  await createUnsoldLog({ ...shop, directory })('a', [{ id: 'm', ...unknown }]);
  expect(shop.logged).toEqual([{ event: 'model-check-failed', worker: 'a', reason: 'it is away' }]);
});
