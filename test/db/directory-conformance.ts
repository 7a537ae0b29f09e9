/** The demands on every driver of the directory (see tenant-conformance.ts). */
import { strict as assert } from 'node:assert';
import type { DirectoryDb } from '../../db/types.ts';
import { createDirectory } from '../../edge/directory/directory.ts';
import { price } from '../support/edge/tenant-samples.ts';

import type { Case } from './tenant-conformance.ts';

export const directoryCases: readonly Case<DirectoryDb>[] = [
  {
    name: 'a model is put, replaced and listed',
    async run(db) {
      const directory = createDirectory(db);
      const model = {
        id: 'm1',
        contextLength: 4_096,
        revision: 'a',
        tokenizer: 't',
        ownedBy: 'sift',
        createdAtMs: 5,
      };
      await directory.putModel(model);
      await directory.putModel({ ...model, id: 'm0' });
      await directory.putModel({ ...model, revision: 'b' });
      assert.deepEqual(await directory.models(), [
        { ...model, id: 'm0' },
        { ...model, revision: 'b' },
      ]);
    },
  },
  {
    name: 'the price in force is the latest that has begun, its daily window first',
    async run(db) {
      const directory = createDirectory(db);
      const noon = Date.UTC(2026, 0, 10, 12);
      const minute = 60_000;
      const base = { ...price, model: 'm1', window: null };
      await directory.addPrice({ ...base, id: 'first', fromMs: noon });
      await directory.addPrice({ ...base, id: 'second', fromMs: noon + 100 * minute });
      const night = { startMinute: 16 * 60 + 30, endMinute: 30 };
      await directory.addPrice({ ...base, id: 'night', fromMs: noon, window: night });
      const at = async (minutes: number) =>
        (await directory.priceAt('m1', noon + minutes * minute))?.id ?? null;
      assert.equal(await at(-1), null);
      assert.equal(await at(0), 'first');
      assert.equal(await at(99), 'first');
      assert.equal(await at(100), 'second');
      assert.equal(await at(4 * 60 + 29), 'second');
      assert.equal(await at(4 * 60 + 30), 'night');
      assert.equal(await at(12 * 60 + 29), 'night');
      assert.equal(await at(12 * 60 + 30), 'second');
      assert.equal(await directory.priceAt('m2', noon), null);
      assert.deepEqual(await directory.priceAt('m1', noon), { ...price, id: 'first' });
      assert.deepEqual(
        (await directory.prices('m1')).map(({ id, window }) => [id, window]),
        [
          ['first', null],
          ['night', night],
          ['second', null],
        ],
      );
      assert.equal((await directory.prices(null)).length, 3);
    },
  },
  {
    name: 'a price never changes, and one that makes no sense is refused',
    async run(db) {
      const directory = createDirectory(db);
      const record = { ...price, model: 'm1', fromMs: 0, window: null };
      await directory.addPrice(record);
      await assert.rejects(directory.addPrice({ ...record, output: 1 }));
      await assert.rejects(directory.addPrice({ ...record, id: 'b', output: -1 }));
      await assert.rejects(directory.addPrice({ ...record, id: 'b', output: 0.5 }));
      const empty = { startMinute: 5, endMinute: 5 };
      await assert.rejects(directory.addPrice({ ...record, id: 'b', window: empty }));
      const beyond = { startMinute: 1_440, endMinute: 5 };
      await assert.rejects(directory.addPrice({ ...record, id: 'b', window: beyond }));
      assert.equal((await directory.prices('m1')).length, 1);
    },
  },
  {
    name: 'a tenant is created once, can be suspended and has a weight',
    async run(db) {
      const directory = createDirectory(db);
      const created = { id: 't1', name: 'One', status: 'active', createdAtMs: 1 } as const;
      assert.equal(await directory.createTenant(created), true);
      const tenant = { ...created, weight: 1 };
      assert.equal(await directory.createTenant({ ...tenant, name: 'Other' }), false);
      assert.deepEqual(await directory.tenant('t1'), tenant);
      assert.equal(await directory.tenant('t2'), null);
      assert.equal(await directory.setTenantStatus('t1', 'suspended'), true);
      assert.equal(await directory.setTenantStatus('t2', 'suspended'), false);
      assert.equal(await directory.setTenantWeight('t1', 3), true);
      assert.equal(await directory.setTenantWeight('t2', 3), false);
      assert.deepEqual(await directory.tenants(), [{ ...tenant, status: 'suspended', weight: 3 }]);
    },
  },
  {
    name: 'a payment event is noted once',
    async run(db) {
      const directory = createDirectory(db);
      const event = { id: 'evt_1', kind: 'checkout', tenant: 't1', receivedAtMs: 1 };
      assert.equal(await directory.knowsEvent('evt_1'), false);
      assert.equal(await directory.noteEvent(event), true);
      assert.equal(await directory.noteEvent(event), false);
      assert.equal(await directory.knowsEvent('evt_1'), true);
    },
  },
  {
    name: 'a payment begins once, and is listed once it is credited',
    async run(db) {
      const directory = createDirectory(db);
      const payment = { source: 's2', tenant: 't1', amountNanoUsd: 5, beganAtMs: 1 };
      const page = { tenant: 't1', afterSource: '', limit: 1 };
      assert.equal(await directory.beginPayment(payment), 'new');
      assert.equal(await directory.beginPayment({ ...payment, amountNanoUsd: 6 }), 'begun');
      assert.deepEqual(await directory.creditedPayments(page), []);
      await directory.endPayment('s2');
      assert.equal(await directory.beginPayment(payment), 'credited');
      for (const source of ['s1', 's3']) {
        await directory.beginPayment({ ...payment, source });
        await directory.endPayment(source);
      }
      await directory.beginPayment({ ...payment, source: 's4', tenant: 't2' });
      await directory.endPayment('s4');
      const first = await directory.creditedPayments(page);
      assert.deepEqual(
        first.map(({ source }) => source),
        ['s1'],
      );
      const rest = await directory.creditedPayments({ ...page, afterSource: 's1', limit: 9 });
      assert.deepEqual(
        rest.map(({ source, amountNanoUsd }) => [source, amountNanoUsd]),
        [
          ['s2', 5],
          ['s3', 5],
        ],
      );
    },
  },
];
