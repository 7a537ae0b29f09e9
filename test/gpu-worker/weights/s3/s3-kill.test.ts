/** kill -9 at random moments of loads. More of them by SIFT_KILLS=500. */
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { openDirectory } from '../../../../gpu-worker/weights/directory-source.ts';
import { makeManifest, manifestName } from '../../../../gpu-worker/weights/manifest-file.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  digestOf,
  quickTuning,
  useStore,
  writePartedCheckpoint,
} from '../../../support/weights/s3-checkpoint.ts';
import { putDirectory, startS3Double } from '../../../support/weights/s3-double.ts';
import type { S3Double } from '../../../support/weights/s3-double.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const kills = Number(process.env.SIFT_KILLS ?? 50);
const child = fileURLToPath(new URL('../../../support/weights/s3-load-child.ts', import.meta.url));
const folder = temporaryDirectory();

test(
  `after ${kills} loads that were killed, one completes without fetching a verified part again`,
  { timeout: 60_000 + kills * 5000 },
  async () => {
    const seed = Date.now() % 1e9;
    console.log(`seed ${seed}`);
    const random = seededRandom(seed);
    await using double = await startS3Double();
    useStore(double.url);
    // A little slower than memory, so that a load has moments to be killed at.
    double.fault = ({ range }) => (range === null ? null : { kind: 'slow', pieceMs: 1 });

    // Half of the loads go by the journal, the other half by a manifest. Caches start afresh now
    // and then, so that kills meet loads at every stage.
    const lanes = ['plain', 'listed'].map((kind) => new Lane(kind, double));
    await Promise.all(
      lanes.map(async (lane) => {
        await lane.prepare();
        for (let kill = 0; kill < kills / 2; kill++) {
          if (kill % 8 === 0) lane.emptyCache();
          await lane.load(random.uniform() * 250);
        }
        const fetched = await lane.load(null);
        expect(lane.again, `seed ${seed}`).toEqual([]);
        console.log(
          `${lane.kind}: ${lane.completed} loads were quicker than their kill; the last fetched ${fetched} parts`,
        );
      }),
    );
  },
);

/** Loads of one checkpoint, one after another, and what they fetched although it was verified. */
class Lane {
  readonly kind: string;
  readonly again: string[] = [];
  completed = 0;
  readonly #double: S3Double;
  #cache = '';
  #truth = '';

  constructor(kind: string, double: S3Double) {
    this.kind = kind;
    this.#double = double;
  }

  async prepare(): Promise<void> {
    const directory = writePartedCheckpoint(join(folder, this.kind), this.kind.length);
    const source = await openDirectory(directory);
    if (this.kind === 'listed') {
      const manifest = await makeManifest(source, { partBytes: quickTuning.partBytes });
      writeFileSync(join(directory, manifestName), JSON.stringify(manifest));
    }
    this.#truth = await digestOf(source);
    putDirectory(this.#double, directory, this.kind);
  }

  emptyCache(): void {
    this.#cache = mkdtempSync(join(folder, 'cache-'));
  }

  /** Kills the load after so long, or lets it end for null. Returns how many parts it fetched. */
  async load(killAfterMs: number | null): Promise<number> {
    const verified = this.#verifiedParts();
    const before = this.#double.requests.length;
    const loading = spawn(process.execPath, [child, `s3://models/${this.kind}`, this.#cache], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NODE_COMPILE_CACHE: join(folder, 'compiled') },
    });
    const lines = createInterface({ input: loading.stdout });
    const said: string[] = [];
    lines.on('line', (line) => said.push(line));
    const exited = once(loading, 'exit');
    await Promise.race([once(lines, 'line'), exited]);
    if (killAfterMs !== null) {
      await Promise.race([sleep(killAfterMs), exited]);
      loading.kill('SIGKILL');
    }
    await exited;
    const digest = said[1];
    if (killAfterMs === null || digest !== undefined) assert.equal(digest, this.#truth);
    if (digest !== undefined) this.completed++;

    const fetched = this.#double.requests
      .slice(before)
      .filter(({ key, range }) => key.startsWith(`${this.kind}/`) && range !== null)
      .map(({ key, range }) => `${key.slice(this.kind.length + 1)} ${range?.join('-')}`);
    this.again.push(...fetched.filter((part) => verified.has(part)));
    return fetched.length;
  }

  /**
   * Lists parts by file and range, as the journals have them; with a manifest, as the cached hashes
   * have.
   */
  #verifiedParts(): Set<string> {
    return this.kind === 'listed' ? this.#cachedParts() : this.#journalledParts();
  }

  #cachedParts(): Set<string> {
    const text = String(this.#double.objects.get(`listed/${manifestName}`)?.content);
    const cached = new Set(this.#files('sha256').map((path) => path.slice(-64)));
    const parts = new Set<string>();
    for (const [name, file] of Object.entries<{ parts: [number, string][] }>(
      JSON.parse(text).files,
    )) {
      let start = 0;
      for (const [end, sha256] of file.parts) {
        if (cached.has(sha256)) parts.add(`${name} ${start}-${end}`);
        start = end;
      }
    }
    return parts;
  }

  /** A journal does not name its object, but its parts' hashes are those of the true bytes. */
  #journalledParts(): Set<string> {
    const parts = new Set<string>();
    for (const path of this.#files('journal')) {
      for (const line of readFileSync(path, 'utf8').split('\n')) {
        const [, start, end, sha256] =
          /^\{"start":(\d+),"end":(\d+),"sha256":"(\w{64})"\}$/.exec(line) ?? [];
        if (start === undefined || sha256 === undefined) continue;
        parts.add(
          `${this.#fileWith({ start: Number(start), end: Number(end), sha256 })} ${start}-${end}`,
        );
      }
    }
    return parts;
  }

  #fileWith({ start, end, sha256 }: { start: number; end: number; sha256: string }): string {
    for (const [key, { content }] of this.#double.objects) {
      if (!key.startsWith(`${this.kind}/`) || 'file' in content) continue;
      const bytes = content.subarray(start, end);
      if (createHash('sha256').update(bytes).digest('hex') === sha256)
        return key.slice(this.kind.length + 1);
    }
    throw new Error(
      `the journal holds the part ${start}-${end} with a hash that no file has there`,
    );
  }

  #files(name: string): string[] {
    const root = join(this.#cache, name);
    if (!existsSync(root)) return [];
    return readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
  }
}
