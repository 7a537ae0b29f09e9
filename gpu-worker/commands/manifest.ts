/**
 * `sift manifest --model <dir>`: writes sift.manifest.json beside a checkpoint's files, to be
 * uploaded with them. A worker that loads from a store then verifies each part as it arrives.
 */
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { CommandModule } from '../../infra/program.ts';
import { UsageError, UserError } from '../../infra/user-error.ts';
import { createProgress } from '../progress.ts';
import { openDirectory } from '../weights/directory-source.ts';
import { makeManifest, manifestName } from '../weights/manifest-file.ts';
import { s3Tuning } from '../weights/open-source.ts';

export const configure: CommandModule['configure'] = (program) => {
  program
    .option('--model <directory>', 'directory or file:// URL of the checkpoint')
    .action(({ model }) => {
      if (!model) throw new UsageError('--model is missing');
      return writeManifest(model);
    });
};

async function writeManifest(location: string): Promise<void> {
  await using source = await openDirectory(location);
  const hashing = createProgress('hashing', 'bytes');
  const manifest = await makeManifest(source, {
    partBytes: s3Tuning.partBytes,
    onProgress: hashing.update,
  });
  hashing.stop();
  const path = join(source.location, manifestName);
  await replaceFile(path, `${JSON.stringify(manifest)}\n`);
  const files = Object.values(manifest.files);
  const bytes = files.reduce((total, file) => total + file.bytes, 0);
  console.log(`${path}: ${files.length} files, ${bytes} bytes`);
}

/** Whole or not at all, even if this process is killed. */
async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await using file = await open(temporary, 'wx');
    await file.writeFile(text);
    await file.sync();
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new UserError(
      `${path} can't be written: ${error instanceof Error ? error.message : error}`,
      { cause: error },
    );
  }
}
