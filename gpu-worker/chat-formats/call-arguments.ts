/**
 * The arguments of one tool call while the model writes them. Pieces go out as they come, but for
 * an end that may be no part of the arguments: white space, the fence that closes a block, and the
 * replacement character of a character whose bytes are incomplete.
 */

/** `NAME` and the fence that opens a block of JSON, where arguments come in one. */
const opening = /^\s*([^\s`{}[\]"]+)[ \t]*\n```json\n/;
/** Text that more of it could make an opening. */
const openingBegun = /^\s*[^\s`{}[\]"]*[ \t]*\n?`{0,3}[json]{0,4}$/;

export class CallArguments {
  /** Null while it is open whether the arguments come in a fenced block. */
  #isFenced: boolean | null;
  /** The name within the fenced form. */
  #fencedName: string | null = null;
  #held = '';
  #sent = '';

  constructor(options: { readonly mayBeFenced: boolean }) {
    this.#isFenced = options.mayBeFenced ? null : false;
  }

  /** Null until the form is decided, and for ever in the form without a fence. */
  get fencedName(): string | null {
    return this.#fencedName;
  }

  get isDecided(): boolean {
    return this.#isFenced !== null;
  }

  /** The text that waits for a decision about the form. */
  get undecided(): string {
    return this.isDecided ? '' : this.#held;
  }

  /** Returns what can be sent by now. */
  push(text: string): string {
    this.#held += text;
    if (this.#isFenced === null) {
      const opened = opening.exec(this.#held);
      if (!opened && openingBegun.test(this.#held)) return '';
      this.#isFenced = opened !== null;
      this.#fencedName = opened?.[1] ?? null;
      this.#held = this.#held.slice(opened?.[0].length ?? 0);
    }
    return this.#send(this.#held.length - endLength(this.#held, this.#isFenced));
  }

  /** The rest of arguments that the model has completed. */
  complete(): string {
    this.#isFenced ??= false;
    const written = this.#held.trimEnd();
    return this.#send((this.#isFenced ? withoutFence(written) : written).length);
  }

  /**
   * The rest of arguments that were cut short; `markBegun` came last and may begin one of the
   * model's marks. Outside a string, white space, a fence and a mark have no part in what was cut.
   */
  cut(markBegun: string): string {
    this.#isFenced ??= false;
    const written = this.#held.replace(/\uFFFD+$/, '');
    if (isInsideString(this.#sent + written)) {
      this.#held = written + markBegun;
      return this.#send(this.#held.length);
    }
    const length = this.#isFenced ? written.replace(/\s*`{0,3}\s*$/, '').length : undefined;
    return this.#send(length ?? written.trimEnd().length);
  }

  /** Sends so many of the held characters; white space before the first of all is left out. */
  #send(length: number): string {
    const piece = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    const sent = this.#sent === '' ? piece.trimStart() : piece;
    this.#sent += sent;
    return sent;
  }
}

/** The length of the end that is held back. */
function endLength(text: string, isFenced: boolean): number {
  let kept = trimmedLength(text);
  if (isFenced) {
    let fence = kept;
    while (fence > 0 && kept - fence < 3 && text[fence - 1] === '`') fence--;
    if (fence < kept) kept = trimmedLength(text.slice(0, fence));
  }
  return text.length - kept;
}

function trimmedLength(text: string): number {
  let length = text.length;
  while (length > 0 && /[\s\uFFFD]/.test(text[length - 1] ?? '')) length--;
  return length;
}

function withoutFence(text: string): string {
  return text.endsWith('```') ? text.slice(0, -3).trimEnd() : text;
}

/** Tells whether JSON that begins like this ends inside a string. */
function isInsideString(json: string): boolean {
  let inside = false;
  for (let at = 0; at < json.length; at++) {
    if (inside && json[at] === '\\') at++;
    else if (json[at] === '"') inside = !inside;
  }
  return inside;
}
