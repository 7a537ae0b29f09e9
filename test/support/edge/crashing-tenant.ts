/** A tenant in a file, for tests that let its process die. */
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { commitInGroups } from '../../../db/group-commit.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { testClock } from './tenant-samples.ts';

/** A crash goes on from a copy of the files as they lie on the disk. */
export class CrashingTenant {
  readonly clock = testClock();
  readonly folder = mkdtempSync(join(tmpdir(), 'sift-ledger-'));
  generation = 0;
  opened = openTenantDb(this.path());
  tenant = this.create();

  path(): string {
    return join(this.folder, `${this.generation}.db`);
  }

  create(): Tenant {
    const { db } = this.opened;
    return createTenant(db, { clock: this.clock, committer: commitInGroups(db, setImmediate) });
  }

  crash(): void {
    const before = this.path();
    this.generation++;
    for (const suffix of ['', '-wal']) {
      if (existsSync(before + suffix)) copyFileSync(before + suffix, this.path() + suffix);
    }
    this.opened.close();
    this.opened = openTenantDb(this.path());
    this.tenant = this.create();
  }

  remove(): void {
    this.opened.close();
    rmSync(this.folder, { recursive: true });
  }
}
