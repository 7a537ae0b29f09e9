/**
 * The content of a backup, as its `backup.json` lists it. It is written last, so a folder without
 * it is a backup that something stopped.
 */
import { UserError } from '../../infra/user-error.ts';
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

export const manifestName = 'backup.json';
const tenantFile = /^tenants\/[a-z0-9_-]+\.db$/;

const fileSchema = z.strictObject({
  /** Below the folder; never a path out of it. */
  path: z
    .string()
    .refine(
      (path) => /^(directory\.db|secrets\.env|fleet\.json)$/.test(path) || tenantFile.test(path),
    ),
  bytes: z.int().min(0),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

export const manifestSchema = z.strictObject({
  format: z.literal(1),
  began_at: z.string(),
  ended_at: z.string(),
  /** Migrations that the databases have had at most. */
  migrations: z.strictObject({ directory: z.int(), tenant: z.int() }),
  /** The directory is copied first, then each tenant at a moment of its own. */
  files: z.array(fileSchema),
  /** Tenants that the directory names and that could not be copied. */
  unavailable: z.array(z.strictObject({ tenant: z.string(), reason: z.string() })),
});

export type BackupManifest = z.infer<typeof manifestSchema>;
export type BackupFile = z.infer<typeof fileSchema>;

/** @throws UserError unless the folder holds a backup that came to its end. */
export function readManifest(folder: string): BackupManifest {
  let text: string;
  try {
    text = readFileSync(join(folder, manifestName), 'utf8');
  } catch (cause) {
    const why = `it has no ${manifestName}, which is written last`;
    throw new UserError(`${folder} is no complete backup: ${why}`, { cause });
  }
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new UserError(`${join(folder, manifestName)} is damaged, or of a newer version`, {
      cause,
    });
  }
}

/** Bytes and hash of a file as it lies there. */
export async function describeFile(folder: string, path: string): Promise<BackupFile> {
  const whole = join(folder, path);
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(whole)) hash.update(chunk);
  return { path, bytes: statSync(whole).size, sha256: hash.digest('hex') };
}

export function tenantOf(path: string): string | null {
  return tenantFile.test(path) ? path.slice('tenants/'.length, -'.db'.length) : null;
}
