import { expect, test } from 'vitest';
import { createDiskWatch, diskOf } from '../../infra/disk-watch.ts';

test('a disk that fills up and is emptied again is told once each, and shown meanwhile', async () => {
  const disk = { bytes: 1_000, freeBytes: 50 };
  const logged: unknown[] = [];
  const watch = createDiskWatch({
    freePercentMin: 5,
    log: (_, event, fields) => void logged.push({ event, ...fields }),
    readDisk: () => disk,
  });
  await watch.look();
  expect([logged, watch.warnings()]).toEqual([[], []]);
  disk.freeBytes = 49;
  await watch.look();
  await watch.look();
  expect(logged).toEqual([{ event: 'disk-low', freePercent: 4.9 }]);
  expect(watch.warnings()).toEqual([expect.stringContaining('Less than 5%')]);
  disk.freeBytes = 500;
  await watch.look();
  expect(logged).toContainEqual({ event: 'disk-has-room', freePercent: 50 });
  expect(watch.warnings()).toEqual([]);
});

test('a disk has room for what lies on it', () => {
  const { bytes, freeBytes } = diskOf(import.meta.dirname);
  expect(bytes).toBeGreaterThan(0);
  expect(freeBytes).toBeLessThanOrEqual(bytes);
});
