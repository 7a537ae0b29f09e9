/**
 * One load in a process of its own, to be killed at any moment: `node s3-load-child.ts <location>
 * <cache directory>`. Says `loading` once it asks the store, and the digest at the end.
 */
import { at } from '../../../gpu-worker/at.ts';
import { defaultSourceSettings, openSource } from '../../../gpu-worker/weights/open-source.ts';
import { digestOf, quickTuning } from './s3-checkpoint.ts';

const location = at(process.argv, 2);
const cacheDirectory = at(process.argv, 3);
const settings = { ...defaultSourceSettings, cacheDirectory, connections: 4 };
process.stdout.write('loading\n');
await using source = await openSource(location, settings, quickTuning);
process.stdout.write(`${await digestOf(source)}\n`);
