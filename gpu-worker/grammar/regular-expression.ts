/**
 * JSON Schema's `pattern`: a JavaScript regular expression (flag u), read as the set of texts in
 * which it matches. What looks ahead says something of all that follows, so an expression is read
 * from its front with what comes behind it at hand. What no finite automaton can do (back
 * references), and what is not worth one (looking behind, word boundaries), is refused.
 */
import { at } from '../at.ts';
import type { Work } from './dfa.ts';
import { parseExpression, PatternError } from './expression-syntax.ts';
import type { Expression } from './expression-syntax.ts';
import { anyCodePoint, anyText } from './nfa.ts';
import type { Pattern } from './nfa.ts';

/** Expressions that are read with what follows: those behind a choice are read once per option. */
const readingsMax = 2_000;

const emptyText: Pattern = { kind: 'sequence', parts: [] };
const noText: Pattern = { kind: 'choice', options: [] };

/** @throws PatternError, GrammarLimitError */
export function parseRegularExpression(source: string, work: Work): Pattern {
  const expression = parseExpression(source, work);
  const reader = new Reader();
  if (!reader.asserts(expression, 'start')) {
    return sequence(anyText, reader.rest([expression], 'unknown'));
  }
  const later = reader.rest([expression], 'no');
  const atStart = reader.rest([expression], 'yes');
  if (later === noText) return atStart;
  const afterSome: Pattern = { kind: 'repeat', part: anyCodePoint, min: 1, max: Infinity };
  return { kind: 'choice', options: [atStart, sequence(afterSome, later)] };
}

/** Says whether nothing of the text was read yet. */
type AtStart = 'yes' | 'no' | 'unknown';

class Reader {
  readonly #plain = new Map<Expression, boolean>();
  #readings = 0;

  /** The texts that expressions match from here, whatever follows where no anchor forbids it. */
  rest(expressions: readonly Expression[], atStart: AtStart): Pattern {
    if (++this.#readings > readingsMax) {
      throw new PatternError('it takes too many readings of what follows a choice');
    }
    const plain = expressions.findIndex((each) => !this.#isPlain(each));
    if (plain !== 0) {
      const parts = expressions.slice(0, plain < 0 ? expressions.length : plain);
      if (parts.length === 0) return anyText;
      const isRead = atStart === 'no' || !parts.every(canBeEmpty);
      const others = expressions.slice(parts.length);
      return sequence(
        // The parts are patterns: no assertion is in them.
        { kind: 'sequence', parts: parts as readonly Pattern[] },
        this.rest(others, isRead ? 'no' : 'unknown'),
      );
    }
    const first = at(expressions, 0);
    const others = expressions.slice(1);
    switch (first.kind) {
      case 'start':
        if (atStart === 'unknown') throw new PatternError('it has an anchor in the midst of it');
        return atStart === 'yes' ? this.rest(others, atStart) : noText;
      case 'end':
        return both(emptyText, others.length === 0 ? anyText : this.rest(others, atStart));
      case 'look-ahead': {
        const seen = this.rest([first.inner], atStart);
        const required: Pattern = first.isNegative ? { kind: 'not', part: seen } : seen;
        return both(required, this.rest(others, atStart));
      }
      case 'sequence':
        return this.rest([...first.parts, ...others], atStart);
      case 'choice':
        return choice(first.options.map((option) => this.rest([option, ...others], atStart)));
      case 'repeat':
        return this.#repeated(first, others, atStart);
      case 'set':
        throw new Error('a set asserts nothing');
    }
  }

  asserts(expression: Expression, kind: 'start' | 'end' | 'look-ahead'): boolean {
    if (expression.kind === kind) return true;
    switch (expression.kind) {
      case 'sequence':
        return expression.parts.some((part) => this.asserts(part, kind));
      case 'choice':
        return expression.options.some((option) => this.asserts(option, kind));
      case 'repeat':
        return this.asserts(expression.part, kind);
      case 'look-ahead':
        return this.asserts(expression.inner, kind);
      default:
        return false;
    }
  }

  /** Tells whether it has no assertion in it, so that it means the same wherever it stands. */
  #isPlain(expression: Expression): boolean {
    let isPlain = this.#plain.get(expression);
    if (isPlain === undefined) {
      isPlain = !(['start', 'end', 'look-ahead'] as const).some((kind) =>
        this.asserts(expression, kind),
      );
      this.#plain.set(expression, isPlain);
    }
    return isPlain;
  }

  /** A repetition of what has an assertion in it: written out. */
  #repeated(
    { part, min, max }: Extract<Expression, { kind: 'repeat' }>,
    others: readonly Expression[],
    atStart: AtStart,
  ): Pattern {
    if (max === Infinity) throw new PatternError('it repeats an assertion');
    if (max === 0) return this.rest(others, atStart);
    const again: Expression = { kind: 'repeat', part, min: Math.max(0, min - 1), max: max - 1 };
    const once = this.rest([part, again, ...others], atStart);
    return min > 0 ? once : choice([once, this.rest(others, atStart)]);
  }
}

function canBeEmpty(expression: Expression): boolean {
  switch (expression.kind) {
    case 'set':
      return false;
    case 'sequence':
      return expression.parts.every(canBeEmpty);
    case 'choice':
      return expression.options.some(canBeEmpty);
    case 'repeat':
      return expression.min === 0 || canBeEmpty(expression.part);
    default:
      return true;
  }
}

function sequence(first: Pattern, rest: Pattern): Pattern {
  if (rest === noText) return noText;
  const parts = rest.kind === 'sequence' ? rest.parts : [rest];
  return { kind: 'sequence', parts: [first, ...parts] };
}

function choice(options: readonly Pattern[]): Pattern {
  const possible = options.filter((option) => option !== noText);
  return possible.length === 0 ? noText : { kind: 'choice', options: possible };
}

function both(one: Pattern, other: Pattern): Pattern {
  if (other === anyText) return one;
  const parts = [one, other].flatMap((each) => (each.kind === 'and' ? each.parts : [each]));
  return { kind: 'and', parts };
}
