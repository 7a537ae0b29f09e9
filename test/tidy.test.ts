/** The layout and import rules of ARCHITECTURE.md, checked on the sources as they stand. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, extname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { brokenCitations } from './support/page-citations.ts';
import {
  assertImports,
  banners,
  fragments,
  oldWordsIn,
  privateKeywords,
  wideCode,
  wideComments,
} from './support/source-rules.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const sourceFolders = ['db', 'edge', 'gpu-worker', 'infra', 'test'];

/** Compiled by AssemblyScript, not by TypeScript: they import only one another. */
const kernelFolder = 'gpu-worker/backend/cpu/kernels/';

interface Source {
  readonly path: string;
  readonly text: string;
  /** Files of ours, by path from the root. */
  readonly files: readonly string[];
  /** Packages and node: modules. */
  readonly packages: readonly string[];
}

const sources = sourceFolders.flatMap((folder) => walk(folder)).map(readSource);
const citingFiles = readCitingFiles();
const byPath = new Map(sources.map((source) => [source.path, source]));

/**
 * The folders of ours that each folder may import, itself aside. Composition roots may import
 * everything below.
 */
const layers: Record<string, readonly string[]> = {
  'db/': [],
  'edge/': [
    'db/',
    'gpu-worker/protocol/',
    'infra/disk-watch.ts',
    'infra/log.ts',
    'infra/program.ts',
    'infra/settings.ts',
    'infra/stop-signal.ts',
    'infra/tracing/',
    'infra/user-error.ts',
  ],
  'gpu-worker/protocol/': [],
  'gpu-worker/tokenizer/': ['gpu-worker/at.ts', 'infra/user-error.ts'],
  'gpu-worker/grammar/': ['gpu-worker/at.ts'],
  'gpu-worker/at.ts': [],
  // Contracts alone: only the composition roots pick one of the backends below (see the next
  // rules).
  'gpu-worker/backend/': ['gpu-worker/at.ts', 'infra/settings.ts', 'infra/user-error.ts'],
  'gpu-worker/weights/': [
    'gpu-worker/at.ts',
    'gpu-worker/backend/',
    'infra/disk-watch.ts',
    'infra/user-error.ts',
  ],
  'gpu-worker/model/': [
    'gpu-worker/at.ts',
    'gpu-worker/backend/',
    'gpu-worker/weights/tensor-spec.ts',
    'infra/user-error.ts',
  ],
  'gpu-worker/plan/': [
    'gpu-worker/at.ts',
    'gpu-worker/backend/',
    'gpu-worker/engine/block-manager.ts',
    'gpu-worker/engine/memory-plan.ts',
    'gpu-worker/model/',
    'gpu-worker/weights/',
    'infra/user-error.ts',
  ],
  'gpu-worker/ranks/': ['gpu-worker/at.ts', 'gpu-worker/backend/', 'gpu-worker/model/'],
  'gpu-worker/engine/': [
    'gpu-worker/at.ts',
    'gpu-worker/backend/',
    'gpu-worker/grammar/',
    'gpu-worker/model/',
    'gpu-worker/tokenizer/',
  ],
  'gpu-worker/chat-formats/': [
    'gpu-worker/at.ts',
    'gpu-worker/grammar/',
    'gpu-worker/protocol/',
    'gpu-worker/tokenizer/',
  ],
  'gpu-worker/http/': [
    'gpu-worker/at.ts',
    'gpu-worker/chat-formats/',
    'gpu-worker/engine/',
    'gpu-worker/grammar/',
    'gpu-worker/protocol/',
    'gpu-worker/tokenizer/',
    'infra/disk-watch.ts',
    'infra/tracing/tracing.ts',
    'infra/user-error.ts',
  ],
  'test/oracle/': ['test/support/'],
};

/** The stages of a request (docs/design.md#flow-of-a-request) know no other stage. */
const stages = ['auth', 'admit', 'ledger', 'prefix', 'fleet', 'relay'].map((s) => `edge/${s}/`);

test('each folder imports only what lies below it', () => {
  const offences = sources.flatMap((source) => {
    const folder = Object.keys(layers).find((prefix) => source.path.startsWith(prefix));
    if (folder === undefined) return [];
    const allowed = [folder, ...(layers[folder] ?? [])];
    return source.files
      .filter((file) => !allowed.some((prefix) => file.startsWith(prefix)))
      .map((file) => `${source.path} imports ${file}`);
  });
  expect(offences).toEqual([]);
});

test('the stages of the edge do not import one another', () => {
  const offences = sources.flatMap((source) => {
    const own = stages.find((stage) => source.path.startsWith(stage));
    if (own === undefined) return [];
    return source.files
      .filter((file) => stages.some((stage) => stage !== own && file.startsWith(stage)))
      .map((file) => `${source.path} imports ${file}`);
  });
  expect(offences).toEqual([]);
});

test('only the composition roots pick a backend', () => {
  const picks = sources.filter(
    (source) =>
      source.path.startsWith('gpu-worker/') &&
      !source.path.startsWith('gpu-worker/backend/') &&
      source.files.some((file) => /^gpu-worker\/backend\/(cpu|cuda)\//.test(file)),
  );
  const roots = [
    'open-engine-model.ts',
    'cpu-ranks.ts',
    'rank-entry.ts',
    'commands/plan.ts',
    'commands/score.ts',
    'commands/worker.ts',
  ].map((path) => `gpu-worker/${path}`);
  expect(picks.map((source) => source.path).filter((path) => !roots.includes(path))).toEqual([]);
});

test('runtime names of the edge stand only where a runtime is chosen', () => {
  const runtimes = /^edge\/(node|cloudflare)\/|^edge\/services\.ts$|^db\/drivers\//;
  const offences = sources
    .filter((source) => /^(edge|db)\//.test(source.path) && !runtimes.test(source.path))
    .flatMap((source) =>
      source.packages
        .filter((name) => /^cloudflare:|^better-sqlite3$|^node:fs/.test(name))
        .map((name) => `${source.path} imports ${name}`),
    );
  expect(offences).toEqual([]);
});

test('the environment is read as settings, in one place', () => {
  // AWS's own variables, and what a child of ours is given, are no settings of ours.
  const others = ['gpu-worker/weights/s3/s3-store.ts', 'infra/workerd-edge.ts'];
  const readers = sources
    .filter(({ path, text }) => !path.startsWith('test/') && text.includes('process.env'))
    .map(({ path }) => path);
  expect(readers.filter((path) => !others.includes(path))).toEqual(['infra/settings.ts']);
});

test('the oracle shares no code with the engine', () => {
  const reached = new Set<string>();
  const visit = (path: string): void => {
    if (reached.has(path)) return;
    reached.add(path);
    byPath.get(path)?.files.forEach(visit);
  };
  sources
    .filter((source) => source.path.startsWith('test/oracle/') && !source.path.endsWith('.test.ts'))
    .forEach((source) => visit(source.path));
  expect(reached.size).toBeGreaterThan(0);
  expect([...reached].filter((path) => path.startsWith('gpu-worker/'))).toEqual([]);
});

test('no imports form a cycle', () => {
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
    if (done.has(path) || trail.includes(path)) return;
    byPath.get(path)?.files.forEach((file) => visit(file, [...trail, path]));
    done.add(path);
  };
  sources.forEach((source) => visit(source.path, []));
  expect(cycles).toEqual([]);
});

test('no file only passes exports through', () => {
  const barrels = sources.filter((source) => {
    const statements = source.text
      .replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
      .split(';')
      .map((statement) => statement.trim())
      .filter((statement) => statement !== '');
    return (
      statements.length > 0 && statements.every((s) => /^export\b[\s\S]*\bfrom\s+['"]/.test(s))
    );
  });
  expect(barrels.map((source) => source.path)).toEqual([]);
});

test('no folder or file has a name that says nothing', () => {
  const empty = /(^|\/)(utils?|helpers?|common|core)(\/|\.ts$)/;
  expect(sources.map((source) => source.path).filter((path) => empty.test(path))).toEqual([]);
  expect(sources.map((source) => source.path).filter((path) => /[A-Z_]/.test(path))).toEqual([]);
});

test('comments and kernels fit a screen, and the words are those of the field', () => {
  // The changelog tells of what was; the rules and their test hold the words themselves.
  const read = citingFiles.filter(({ path }) => !/^CHANGELOG|source-rules/.test(path));
  expect(read.filter(({ path }) => !path.endsWith('.md')).flatMap(wideComments)).toEqual([]);
  expect(read.filter(({ path }) => /\.cuh?$/.test(path)).flatMap(wideCode)).toEqual([]);
  expect(read.flatMap(oldWordsIn)).toEqual([]);
});

test('comments begin with what they are about', () => {
  const read = citingFiles.filter(({ path }) => /\.(ts|cu|cuh)$/.test(path));
  expect(read.flatMap(fragments)).toEqual([]);
});

test('no file has headings of its own, private members begin with #, and assertions are strict', () => {
  const rules = [banners, privateKeywords, assertImports];
  // The rules' own test holds what they refuse.
  const read = sources.filter(({ path }) => path !== 'test/source-rules.test.ts');
  expect(read.flatMap((source) => rules.flatMap((rule) => rule(source)))).toEqual([]);
});

test('every file is imported, or named by what runs it', () => {
  const imported = new Set(sources.flatMap(({ files }) => files));
  const configs = readdirSync(root)
    .filter((path) => /\.(json|toml|ts)$/.test(path) && path !== 'package-lock.json')
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
  const texts = [...citingFiles, ...configs];
  const isNamed = ({ path }: Source): boolean => {
    const name = basename(path, '.ts');
    // Benchmarks are started by their names.
    const pattern = new RegExp(`\\b${name}\\.ts\\b|${name}: '|'${name}'`);
    return texts.some((other) => other.path !== path && pattern.test(other.text));
  };
  const runByName = /\.(test|workerd|gpu|swift|d)\.ts$/;
  const dead = sources.filter(
    (source) => !imported.has(source.path) && !runByName.test(source.path) && !isNamed(source),
  );
  expect(dead.map(({ path }) => path)).toEqual([]);
});

test('a page or heading that is cited exists', () => {
  expect(brokenCitations(citingFiles, (path) => existsSync(join(root, path)))).toEqual([]);
});

test('a page is cited by its heading, not by a number', () => {
  const numbered = citingFiles.flatMap(({ path, text }) =>
    [...text.matchAll(/\b(?:engine-spec|design) \d/gi)].map(([cited]) => `${path} cites ${cited}`),
  );
  expect(numbered).toEqual([]);
});

test('a citation of a page or heading that does not exist is found', () => {
  // Put together here, so that the samples are not taken for citations of this file.
  const docs = 'docs';
  const page = `${docs}/page.md`;
  const files = [
    { path: page, text: '# Page\n\n## A heading, of `some` kind\n\n## Twice\n\n## Twice\n' },
    { path: 'edge/cites.ts', text: `/** ${page}#a-heading-of-some-kind, ${page}#twice-1 */` },
    { path: 'edge/heading.cu', text: `// as in ${page}#no-heading` },
    { path: 'edge/page.ts', text: `// as in ${docs}/none.md` },
    { path: `${docs}/links.md`, text: '[page](page.md#twice) [other](https://other.example/x)' },
    { path: `${docs}/own.md`, text: '# Own\n\n[own](#own) [none](#no-heading) [file](../no.ts)' },
  ];
  expect(brokenCitations(files, () => false)).toEqual([
    `edge/heading.cu cites ${page}#no-heading, no heading`,
    `edge/page.ts cites ${docs}/none.md, no file`,
    `${docs}/own.md cites ${docs}/own.md#no-heading, no heading`,
    `${docs}/own.md cites no.ts, no file`,
  ]);
});

test('dependencies are pinned and the lock file holds no download addresses', () => {
  const manifest: unknown = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { dependencies, devDependencies } = manifest as Record<string, Record<string, string>>;
  const versions = Object.values({ ...dependencies, ...devDependencies });
  expect(versions.filter((version) => !/^\d+\.\d+\.\d+/.test(version))).toEqual([]);
  expect(readFileSync(join(root, 'package-lock.json'), 'utf8')).not.toContain('"resolved"');
});

function walk(folder: string): string[] {
  return filesOf(folder)
    .filter((path) => path.endsWith('.ts'))
    .filter((path) => !path.startsWith(kernelFolder));
}

function filesOf(folder: string): string[] {
  const absolute = join(root, folder);
  if (!statSync(absolute, { throwIfNoEntry: false })?.isDirectory()) return [];
  return readdirSync(absolute, { recursive: true, encoding: 'utf8' }).map((path) =>
    join(folder, path),
  );
}

/** Sources of every language, and pages; not those that came with golden cases of others. */
function readCitingFiles(): { readonly path: string; readonly text: string }[] {
  const kinds = ['.ts', '.cu', '.cuh', '.md'];
  const rootPages = readdirSync(root).filter((path) => path.endsWith('.md'));
  const files = [...sourceFolders, 'docs'].flatMap((folder) => filesOf(folder));
  return [...rootPages, ...files]
    .filter((path) => kinds.includes(extname(path)) && !/^test\/goldens\/.+\//.test(path))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
}

function readSource(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8');
  const names = [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+'([^']+)'/gm)].map(
    ([, name = '']) => name,
  );
  for (const match of text.matchAll(/\bimport\(\s*'([^']+)'\s*\)|^import\s+'([^']+)'/gm)) {
    names.push(match[1] ?? match[2] ?? '');
  }
  return {
    path,
    text,
    files: names
      .filter((name) => name.startsWith('.'))
      .map((name) => relative(root, join(root, dirname(path), name))),
    packages: names.filter((name) => !name.startsWith('.')),
  };
}
