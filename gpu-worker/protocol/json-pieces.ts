/**
 * Writes JSON piece by piece. An answer may be tens of megabytes, mostly log-probabilities, and to
 * write it at once would hold the thread that serves everybody. The edge and its workers answer
 * this way.
 */

/** A piece is written in a millisecond or two, and ends after the value that makes it so long. */
const pieceCharacters = 128 * 1024;
/** Values deeper than this are written at once: a log-probability, a part of a call's arguments. */
const walkedLevelsMax = 8;
/** The longest that JSON makes of one character of a text. */
const escapedCharactersMax = 6;
/** No number is longer, with what stands around a value. */
const plainCharactersMax = 32;

/** The items of a JSON array, each written as it comes: a text is a fraction of what it says. */
export class WrittenItems {
  readonly texts: string[] = [];

  push(item: unknown): void {
    this.texts.push(JSON.stringify(item) ?? 'null');
  }

  toJSON(): unknown[] {
    return this.texts.map((text): unknown => JSON.parse(text));
  }
}

/**
 * Writes what JSON.stringify makes of the value: as it is where it is short, else piece by piece.
 */
export function writeJson(value: object): string | AsyncGenerator<string, void> {
  const pieces = jsonPieces(value);
  const first = pieces.next().value ?? '';
  const second = pieces.next();
  return second.done ? first : inTurns([first, second.value], pieces);
}

/** The same as a text, or null if it has more characters than that. */
export function shortJson(value: object, charactersMax: number): string | null {
  let text = '';
  for (const piece of jsonPieces(value)) {
    text += piece;
    if (text.length > charactersMax) return null;
  }
  return text;
}

/** Pieces as they are asked for, each in a turn of the event loop of its own. */
async function* inTurns(
  begun: readonly string[],
  rest: Iterable<string>,
): AsyncGenerator<string, void> {
  yield* begun;
  for (const piece of rest) {
    // Whatever else waits for the event loop goes first.
    await new Promise((resolve) => setTimeout(resolve, 0));
    yield piece;
  }
}

function* jsonPieces(value: object): Generator<string, void> {
  if (leftAfter(value, { characters: pieceCharacters, levels: walkedLevelsMax }) >= 0) {
    yield JSON.stringify(value);
    return;
  }
  let piece = '';
  for (const part of partsOf(value, walkedLevelsMax)) {
    piece += part;
    if (piece.length < pieceCharacters) continue;
    yield piece;
    piece = '';
  }
  if (piece !== '') yield piece;
}

/**
 * Returns what is left of a budget of characters after the value, counted as the longest that it
 * could be; less than 0 where it may be longer, or holds what is written already. Most answers are
 * short, and this look takes a tenth of the time that their parts would.
 */
function leftAfter(
  value: unknown,
  { characters, levels }: { readonly characters: number; readonly levels: number },
): number {
  if (typeof value === 'string') {
    return characters - escapedCharactersMax * value.length - plainCharactersMax;
  }
  if (typeof value !== 'object' || value === null) return characters - plainCharactersMax;
  const isWritten = value instanceof WrittenItems && value.texts.length > 0;
  if (isWritten || levels === 0) return -1;
  let left = characters - plainCharactersMax;
  for (const [name, item] of Object.entries(value)) {
    left -= escapedCharactersMax * name.length + plainCharactersMax;
    left = leftAfter(item, { characters: left, levels: levels - 1 });
    if (left < 0) return left;
  }
  return left;
}

/** Small parts, but for single values that are deep. */
function* partsOf(value: unknown, levels: number): Generator<string, void> {
  if (typeof value === 'string' && value.length > pieceCharacters) yield* partsOfText(value);
  else if (typeof value !== 'object' || value === null || levels === 0) {
    yield JSON.stringify(value) ?? 'null';
  } else if (value instanceof WrittenItems) {
    yield '[';
    for (const [index, text] of value.texts.entries()) yield index === 0 ? text : `,${text}`;
    yield ']';
  } else if (Array.isArray(value)) {
    let before = '[';
    for (const item of value) {
      yield before;
      yield* partsOf(item, levels - 1);
      before = ',';
    }
    yield before === '[' ? '[]' : ']';
  } else {
    let before = '{';
    for (const [name, item] of Object.entries(value)) {
      if (item === undefined) continue;
      yield `${before}${JSON.stringify(name)}:`;
      yield* partsOf(item, levels - 1);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  }
}

function* partsOfText(text: string): Generator<string, void> {
  yield '"';
  for (let start = 0, end = 0; start < text.length; start = end) {
    end = start + pieceCharacters;
    // The two halves of a character stay together.
    if (isFirstHalf(text.charCodeAt(end - 1))) end++;
    yield JSON.stringify(text.slice(start, end)).slice(1, -1);
  }
  yield '"';
}

function isFirstHalf(codeUnit: number): boolean {
  return (codeUnit & 0xfc00) === 0xd800;
}
