/**
 * Finds what cites a page or a heading that does not exist: links between Markdown files, and pages
 * of the docs folder in the comments of sources. Paths are from the root of the repository.
 */
import { posix } from 'node:path';

export interface CitingFile {
  readonly path: string;
  readonly text: string;
}

interface Citation {
  /** The page or file that is cited. */
  readonly target: string;
  /** The heading, as in a link; null where the whole page is meant. */
  readonly anchor: string | null;
}

/** Sentences about citations that lead nowhere. `exists` is asked for what `files` do not hold. */
export function brokenCitations(
  files: readonly CitingFile[],
  exists: (path: string) => boolean,
): string[] {
  const pages = new Map(
    files
      .filter(({ path }) => path.endsWith('.md'))
      .map(({ path, text }) => [path, anchorsOf(text)]),
  );
  return files.flatMap((file) =>
    citationsOf(file).flatMap(({ target, anchor }) => {
      const anchors = pages.get(target);
      if (anchors === undefined && !exists(target)) return `${file.path} cites ${target}, no file`;
      if (anchor === null || anchors === undefined || anchors.has(anchor)) return [];
      return `${file.path} cites ${target}#${anchor}, no heading`;
    }),
  );
}

function citationsOf({ path, text }: CitingFile): Citation[] {
  const cited = [...text.matchAll(/(?<![\w./-])(docs\/[\w./-]+\.md)(?:#([\w-]+))?/g)];
  const citations = cited.map(([, target = '', anchor = null]) => ({ target, anchor }));
  return path.endsWith('.md') ? [...citations, ...linksOf({ path, text })] : citations;
}

/** Links to files, relative to the page that has them, and to headings of the page itself. */
function linksOf({ path, text }: CitingFile): Citation[] {
  return [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link = '']) => {
    if (/^[a-z]+:/.test(link)) return [];
    const [file = '', anchor = null] = link.split('#');
    const target = file === '' ? path : posix.join(posix.dirname(path), file);
    return { target, anchor };
  });
}

/** The names by which GitHub links the headings of a page; equal ones are numbered. */
function anchorsOf(markdown: string): ReadonlySet<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of withoutCode(markdown).matchAll(/^#{1,6} +(.+?) *#*$/gm)) {
    const name = heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-');
    let anchor = name;
    for (let count = 1; anchors.has(anchor); count++) anchor = `${name}-${count}`;
    anchors.add(anchor);
  }
  return anchors;
}

function withoutCode(markdown: string): string {
  return markdown
    .replaceAll(/^```[\s\S]*?^```/gm, '')
    .replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, ' ').replaceAll('`', ''));
}
