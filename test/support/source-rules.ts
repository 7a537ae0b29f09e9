/** Rules about the text of sources, each a function that names the lines at fault. */

export interface SourceText {
  readonly path: string;
  readonly text: string;
}

export const columnsMax = 100;

/** Words of our own for what has a name in the field. */
const oldWords: readonly RegExp[] = [
  /\bmatrix units?\b/i,
  /\bmatrixUnit/,
  /\bmultiprocessors?\b/i,
  /\bwiden(s|ed|ing)?\b/,
  /\brehears(e|es|ed|al)\b/i,
  /\btenantDoor\b/i,
  /\banswersAlike\b/,
  /\binOthersTerms\b/,
  /\b(create|Request)Ending\b/,
  /\bprepareOrder\b/,
  /\bHoldKeeper\b/,
  /\bMixture\b(?! of experts)/,
];

/** Comments that are wider than a screen; an address cannot be broken. */
export function wideComments(file: SourceText): string[] {
  return linesOf(file, (line) => {
    const isComment = /^\s*(\/\/|\/\*|\*( |\/|$))/.test(line);
    return isComment && line.length > columnsMax && !line.includes('://');
  });
}

/** Code that no formatter keeps within a screen. */
export function wideCode(file: SourceText): string[] {
  return linesOf(file, (line) => line.length > columnsMax);
}

export function oldWordsIn(file: SourceText): string[] {
  return linesOf(file, (line) => oldWords.some((word) => word.test(line)));
}

/**
 * A comment that begins with one of these has mostly no verb, or leaves out what it is about:
 * "Of the last request." It is found at the beginning of a comment alone.
 */
const fragmentWords = /^(Of|What|Whether|Where|How|Which|When|That|Who|Whose|Why)\b/;

export function fragments({ path, text }: SourceText): string[] {
  const lines = text.split('\n').map((line) => line.trim());
  return lines.flatMap((line, index) => {
    const before = lines[index - 1] ?? '';
    const begins = line.startsWith('//') ? !before.startsWith('//') : line.startsWith('/*');
    const first = line.replace(/^(\/\/|\/\*+)\s*/, '');
    const words = begins && first === '' ? (lines[index + 1] ?? '').replace(/^\*\s*/, '') : first;
    return begins && fragmentWords.test(words) ? [`${path}:${index + 1} ${words}`] : [];
  });
}

/** A file that needs headings is two files. */
export function banners(file: SourceText): string[] {
  return linesOf(file, (line) => /^\s*\/\/ ?(-{3,}|={3,})/.test(line));
}

/** Assertions have one module and one name; the loose ones compare with `==`. */
export function assertImports(file: SourceText): string[] {
  const right = "import { strict as assert } from 'node:assert';";
  return linesOf(
    file,
    (line) => /^(import|\}).* from '(node:)?assert(\/strict)?'/.test(line) && line !== right,
  );
}

/** Private members begin with `#`; a constructor has no other way. */
export function privateKeywords(file: SourceText): string[] {
  return linesOf(file, (line) => /^\s*private (?!constructor\b)/.test(line));
}

function linesOf({ path, text }: SourceText, isAtFault: (line: string) => boolean): string[] {
  return text
    .split('\n')
    .flatMap((line, index) => (isAtFault(line) ? [`${path}:${index + 1} ${line.trim()}`] : []));
}
