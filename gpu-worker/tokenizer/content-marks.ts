/**
 * Keeps what users wrote apart from what the chat template wrote, through a template that sees only
 * strings. Wherever a message holds the string of a control token, that string is put between two
 * marks; after rendering, a string between marks is text, and one without is the template's own.
 *
 * The marks stand around the string, not in it, so that a template that looks for `</think>` in an
 * answer still finds it. What a template cuts in two loses one mark of the pair; a lone mark only
 * keeps its neighbours from joining into a control token, and then disappears. Lone marks are also
 * set where a text begins or ends with a part of a control token, which its surroundings could
 * complete.
 *
 * All other text carries no marks. Marks are gone before anything is encoded, and text on both
 * sides of one is encoded together, so that they never change the tokens of text.
 */
import { controlPattern } from './tokenizer.ts';
import type { PromptPart } from './tokenizer.ts';

/** The messages can't be marked or rendered; the fault lies with the request. */
export class InvalidPromptError extends Error {
  override readonly name = 'InvalidPromptError';
}

/** Three characters that occur nowhere in the messages. */
export interface Marks {
  readonly open: string;
  readonly close: string;
  /** Stands where the prompt shall end. */
  readonly end: string;
}

export interface Marker {
  /** `value` with every string in it marked, at any depth. */
  mark(value: unknown, marks: Marks): unknown;
  /** The rendered text as control tokens of the template and text; nothing is left of the marks. */
  split(rendered: string, marks: Marks): PromptPart[];
}

/** Unicode's noncharacters and the private use area: no text means anything by them. */
const markRanges = [
  [0xfdd0, 0xfdef],
  [0xe000, 0xf8ff],
] as const;

/** Throws an InvalidPromptError for a request that uses up all characters that could be marks. */
export function chooseMarks(value: unknown): Marks {
  const text = JSON.stringify(value).toLowerCase();
  const free: string[] = [];
  for (const [first, last] of markRanges) {
    for (let code = first; code <= last; code++) {
      const mark = String.fromCharCode(code);
      // A template may escape it, so that the escape must not stand in the text either.
      if (!text.includes(mark) && !text.includes(escapeOf(mark))) free.push(mark);
      const [open, close, end] = free;
      if (open !== undefined && close !== undefined && end !== undefined)
        return { open, close, end };
    }
  }
  throw new InvalidPromptError('the messages use every private-use character there is');
}

export function createMarker(controlContents: readonly string[]): Marker {
  const edges = createEdges(controlContents);
  const control = controlPattern(controlContents);

  const markText = (text: string, { open, close }: Marks): string => {
    const marked = text.replace(control, `${open}$&${close}`);
    const start = edges.isTail(text.trimStart()) ? open : '';
    const end = edges.isHead(text.trimEnd()) || edges.isInside(text.trim()) ? close : '';
    if (start === '' && end === '') return marked;
    // Inside the white space around the text: a template that trims shall still find it.
    const bare = marked.trim();
    return marked.replace(bare, () => start + bare + end);
  };

  /** Names are looked up and compared by templates, so that they are marked only if they must. */
  const markName = (name: string, { open, close }: Marks): string =>
    /^[\w-]*$/.test(name) ? name : name.replace(control, `${open}$&${close}`);

  const mark = (value: unknown, marks: Marks): unknown => {
    if (typeof value === 'string') return markText(value, marks);
    if (Array.isArray(value)) return value.map((item) => mark(item, marks));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => [
          markName(key, marks),
          key === 'role' && typeof item === 'string' ? markName(item, marks) : mark(item, marks),
        ]),
    );
  };

  return {
    mark,
    split(rendered, marks) {
      const { open, close } = marks;
      const text = unescapeMarks(rendered, marks);
      const parts: PromptPart[] = [];
      let from = 0;
      for (const match of text.matchAll(control)) {
        const [content] = match;
        const end = match.index + content.length;
        if (text[match.index - 1] === open && text[end] === close) continue;
        parts.push({ kind: 'text', text: withoutMarks(text.slice(from, match.index), marks) });
        parts.push({ kind: 'control', content });
        from = end;
      }
      parts.push({ kind: 'text', text: withoutMarks(text.slice(from), marks) });
      return parts;
    },
  };
}

/** `tojson` can write other characters than ASCII as escapes, the marks among them. */
function unescapeMarks(text: string, marks: Marks): string {
  return Object.values(marks).reduce(
    (done: string, mark: string) => done.replace(new RegExp(`\\${escapeOf(mark)}`, 'gi'), mark),
    text,
  );
}

function withoutMarks(text: string, marks: Marks): string {
  return Object.values(marks).reduce(
    (done: string, mark: string) => done.replaceAll(mark, ''),
    text,
  );
}

interface Edges {
  /** True of a text that begins with the last part of a control token. */
  isTail(text: string): boolean;
  /** True of a text that ends with the first part of a control token. */
  isHead(text: string): boolean;
  /**
   * True of a text that is all inside of a control token, with neither its first part nor its last.
   */
  isInside(text: string): boolean;
}

/**
 * Texts that could become part of a control token together with what the template puts around them.
 */
function createEdges(contents: readonly string[]): Edges {
  const heads = new Set<string>();
  const tails = new Set<string>();
  let lengthMax = 0;
  for (const content of contents) {
    lengthMax = Math.max(lengthMax, content.length);
    for (let cut = 1; cut < content.length; cut++) {
      heads.add(content.slice(0, cut));
      tails.add(content.slice(cut));
    }
  }
  const lengths = Array.from({ length: Math.max(0, lengthMax - 1) }, (_, i) => i + 1);
  return {
    isTail: (text) => lengths.some((length) => tails.has(text.slice(0, length))),
    isHead: (text) => lengths.some((length) => heads.has(text.slice(-length))),
    isInside: (text) =>
      text !== '' && text.length < lengthMax && contents.some((content) => content.includes(text)),
  };
}

function escapeOf(mark: string): string {
  return `\\u${mark.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
