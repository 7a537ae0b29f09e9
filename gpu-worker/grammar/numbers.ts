/**
 * Automata of JSON numbers. How many digits a number may have is bounded: a model must not be able
 * to write digits until its tokens run out, and what a client parses must be a finite number. Where
 * a schema sets bounds a number has at most 15 digits, in which no two decimals are one double, and
 * an integer without a bound beyond them stays within those that a double tells apart.
 */
import { at } from '../at.ts';
import { exploreDfa, GrammarLimitError } from './dfa.ts';
import type { Dfa, Work } from './dfa.ts';
import { Nfa } from './nfa.ts';

/** JSON.stringify never writes more digits without an exponent. */
const integerDigitsMax = 21;
const fractionDigitsMax = 25;
const exactDigits = 15;
const numberMax = 10 ** exactDigits - 1;
/** Bounds the digits of a `multipleOf`, its point left out. */
export const multipleOfMax = 1000;
export const multipleOfDecimalsMax = 12;

export interface Bound {
  readonly value: number;
  readonly exclusive: boolean;
}

export interface NumberRange {
  readonly min: Bound | null;
  readonly max: Bound | null;
  readonly multipleOf: Multiple | null;
  /** Numbers that are no integers; they are written without an exponent. */
  readonly isFraction?: boolean;
}

/** Numbers that are a multiple of digits / 10^decimals. */
export interface Multiple {
  readonly digits: number;
  readonly decimals: number;
}

/** Null where it is not above 0, or has more digits than can be counted with. */
export function multipleOf(value: number): Multiple | null {
  const { whole, fraction, exponent } = decimalParts(value);
  const decimals = fraction.length - exponent;
  const digits = Number(whole + fraction) * 10 ** Math.max(0, -decimals);
  const isKept = digits > 0 && digits <= multipleOfMax && decimals <= multipleOfDecimalsMax;
  return isKept ? { digits, decimals: Math.max(0, decimals) } : null;
}

/** Null where it has more digits than can be counted with. */
export function commonMultiple(one: Multiple, other: Multiple): Multiple | null {
  const decimals = Math.max(one.decimals, other.decimals);
  const a = one.digits * 10 ** (decimals - one.decimals);
  const b = other.digits * 10 ** (decimals - other.decimals);
  const digits = (a / greatestDivisor(a, b)) * b;
  return digits <= multipleOfMax ? { digits, decimals } : null;
}

/**
 * Tells whether a number is a multiple, as decimals: 0.07 is one of 0.01, though no double says so.
 */
export function isMultiple(value: number, { digits, decimals }: Multiple): boolean {
  const { whole, fraction, exponent } = decimalParts(Math.abs(value));
  const shift = decimals + exponent - fraction.length;
  if (shift > 400) return true;
  if (shift >= 0) return (BigInt(whole + fraction) * 10n ** BigInt(shift)) % BigInt(digits) === 0n;
  const unit = 10n ** BigInt(-shift);
  const scaled = BigInt(whole + fraction);
  return scaled % unit === 0n && (scaled / unit) % BigInt(digits) === 0n;
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}

/** Null where no number is in the range. @throws GrammarLimitError */
export function integerDfa(range: NumberRange, work: Work): Dfa | null {
  const { min, max, multipleOf: multiple } = range;
  const most = greatestInteger(range);
  const low = min === null ? -most : larger(lowestInteger(min), -most);
  const high = max === null ? most : -larger(-highestInteger(max), -most);
  const inclusive = (value: bigint): Decimal => ({
    digits: String(value),
    fraction: '',
    exclusive: false,
  });
  return rangeDfa(
    {
      // 0 is written without a sign, so negative numbers begin at -1.
      negative: low < 0n ? [inclusive(high < 0n ? -high : 1n), inclusive(-low)] : null,
      positive: high >= 0n ? [inclusive(low > 0n ? low : 0n), inclusive(high)] : null,
      fractions: 'none',
      // Integers that are multiples of a fraction are multiples of its numerator.
      modulus: multiple === null ? 1 : numerator(multiple),
      decimalsMax: 0,
    },
    work,
  );
}

/** Reads a bound exactly, also one beyond the safe integers. */
function greatestInteger({ min, max, multipleOf: multiple }: NumberRange): bigint {
  if (multiple !== null) return BigInt(numberMax);
  const isBeyond = [min, max].some(
    (bound) => bound !== null && Math.abs(bound.value) > Number.MAX_SAFE_INTEGER,
  );
  return isBeyond ? 10n ** BigInt(integerDigitsMax) - 1n : BigInt(Number.MAX_SAFE_INTEGER);
}

/** Null where no number is in the range. @throws GrammarLimitError */
export function numberDfa(range: NumberRange, work: Work): Dfa | null {
  // Bounds beyond all that is written say nothing: those of float32 and float64, for example.
  const min = range.min !== null && range.min.value <= -numberMax ? null : range.min;
  const max = range.max !== null && range.max.value >= numberMax ? null : range.max;
  const { multipleOf: multiple, isFraction = false } = range;
  const isAny = isUnbounded(range.min) && isUnbounded(range.max);
  if (isAny && multiple === null && !isFraction) return anyNumberDfa(work);
  const low = min === null ? null : decimalOf(min);
  const high = max === null ? null : decimalOf(max);
  if ([low, high].some((bound) => bound !== null && bound.digits.length > exactDigits)) {
    throw new GrammarLimitError(`numbers with bounds have at most ${exactDigits} digits`);
  }
  const zero: Decimal = { digits: '0', fraction: '', exclusive: false };
  const most: Decimal = { digits: '9'.repeat(exactDigits), fraction: '', exclusive: false };
  const isNegative = (bound: Bound | null): boolean => bound !== null && bound.value < 0;
  const reachesBelow = min === null || min.value < 0;
  const reachesAbove = max === null || max.value >= 0;
  return rangeDfa(
    {
      negative: reachesBelow
        ? [isNegative(max) && high !== null ? high : aboveZero, low ?? most]
        : null,
      positive: reachesAbove
        ? [min !== null && min.value >= 0 && low !== null ? low : zero, high ?? most]
        : null,
      fractions: isFraction ? 'only' : 'any',
      modulus: multiple?.digits ?? 1,
      decimalsMax: multiple?.decimals ?? Infinity,
    },
    work,
  );
}

function anyNumberDfa(work: Work): Dfa | null {
  const nfa = new Nfa(work);
  const digit = (from: number): number => nfa.bytes(from, [0x30, 0x39]);
  const sign = nfa.node();
  nfa.skip(nfa.start, sign);
  nfa.skip(nfa.text(nfa.start, '-'), sign);
  const whole = nfa.node();
  nfa.skip(nfa.text(sign, '0'), whole);
  const first = nfa.bytes(sign, [0x31, 0x39]);
  nfa.skip(nfa.repeat(first, { min: 0, max: integerDigitsMax - 1 }, digit), whole);
  const fraction = nfa.node();
  nfa.skip(whole, fraction);
  const point = nfa.text(whole, '.');
  nfa.skip(nfa.repeat(point, { min: 1, max: fractionDigitsMax }, digit), fraction);
  const end = nfa.node();
  nfa.skip(fraction, end);
  const [positive, negative] = [nfa.node(), nfa.node()];
  for (const letter of 'eE') {
    const exponent = nfa.text(fraction, letter);
    nfa.skip(exponent, positive);
    nfa.skip(nfa.text(exponent, '+'), positive);
    nfa.skip(nfa.text(exponent, '-'), negative);
  }
  nfa.skip(nfa.repeat(negative, { min: 1, max: 3 }, digit), end);
  nfa.skip(nfa.repeat(positive, { min: 1, max: 2 }, digit), end);
  // Up to e279: with 21 digits before the point the number is finite.
  nfa.skip(digit(digit(nfa.text(positive, '1'))), end);
  nfa.skip(digit(nfa.bytes(nfa.text(positive, '2'), [0x30, 0x37])), end);
  return nfa.determinize(end);
}

/** A magnitude: digits before and after the point, without needless zeros. */
interface Decimal {
  readonly digits: string;
  readonly fraction: string;
  readonly exclusive: boolean;
}

const aboveZero: Decimal = { digits: '0', fraction: '', exclusive: true };

interface Ranges {
  /** Magnitudes, least and greatest, of numbers with a sign; null where there are none. */
  readonly negative: readonly [Decimal, Decimal] | null;
  readonly positive: readonly [Decimal, Decimal] | null;
  readonly fractions: 'none' | 'any' | 'only';
  /** A number without its point, at `decimalsMax` decimals, is a multiple of this. */
  readonly modulus: number;
  readonly decimalsMax: number;
}

/** The order of the digits read so far and those of a bound at the same places. */
type Order = -1 | 0 | 1;

interface NumberState {
  readonly phase: 'start' | 'sign' | 'zero' | 'whole' | 'point' | 'fraction';
  readonly isNegative: boolean;
  /** Digits read of the whole part, and of the fraction. */
  readonly whole: number;
  readonly count: number;
  readonly low: Order;
  readonly high: Order;
  readonly remainder: number;
  /** True if a digit of the fraction is not 0. */
  readonly hasFraction: boolean;
}

function rangeDfa(ranges: Ranges, work: Work): Dfa | null {
  const characters = '-.0123456789';
  const classOf = new Uint8Array(256);
  [...characters].forEach((each, index) => (classOf[each.charCodeAt(0)] = index + 1));
  const start: NumberState = {
    phase: 'start',
    isNegative: false,
    whole: 0,
    count: 0,
    low: 0,
    high: 0,
    remainder: 0,
    hasFraction: false,
  };
  return exploreDfa<NumberState>(
    {
      start,
      classOf,
      classes: characters.length + 1,
      key: ({ phase, isNegative, whole, count, low, high, remainder, hasFraction }) =>
        [
          `${phase}${isNegative ? '-' : '+'}${whole}`,
          count,
          low,
          high,
          remainder,
          hasFraction,
        ].join(),
      step: (state, byteClass) =>
        byteClass === 0 ? null : readCharacter(state, at(characters, byteClass - 1), ranges),
      accepts: (state) => isWithin(state, ranges),
    },
    work,
  );
}

function readCharacter(state: NumberState, character: string, ranges: Ranges): NumberState | null {
  const { phase } = state;
  if (character === '-')
    return phase === 'start' ? { ...state, phase: 'sign', isNegative: true } : null;
  const bounds = state.isNegative ? ranges.negative : ranges.positive;
  if (bounds === null) return null;
  const [low, high] = bounds;
  if (character === '.') {
    if (ranges.fractions === 'none' || ranges.decimalsMax === 0) return null;
    if (phase !== 'whole' && phase !== 'zero') return null;
    const order = { low: wholeOrder(state, 'low', low), high: wholeOrder(state, 'high', high) };
    // Room was left for decimals that are few, so the digits before them need no count any more.
    const whole = ranges.decimalsMax === Infinity ? state.whole : 0;
    return { ...state, ...order, whole, phase: 'point' };
  }
  if (phase === 'zero') return null;
  const isFraction = phase === 'point' || phase === 'fraction';
  const room = ranges.decimalsMax === Infinity ? exactDigits : exactDigits - ranges.decimalsMax;
  const most = Math.min(
    Math.max(low.digits.length, high.digits.length),
    ranges.fractions === 'none' ? Infinity : room,
  );
  if (isFraction ? state.whole + state.count >= exactDigits : state.whole >= most) return null;
  if (isFraction && state.count >= ranges.decimalsMax) return null;
  const place = isFraction ? state.count : state.whole;
  const compare = (order: Order, bound: Decimal): Order => {
    if (order !== 0) return order;
    const against = (isFraction ? bound.fraction : bound.digits)[place] ?? '0';
    return character < against ? -1 : character > against ? 1 : 0;
  };
  const isZero = !isFraction && place === 0 && character === '0';
  return {
    ...state,
    phase: isFraction ? 'fraction' : isZero ? 'zero' : 'whole',
    whole: isFraction ? state.whole : state.whole + 1,
    count: isFraction ? state.count + 1 : 0,
    low: compare(state.low, low),
    high: compare(state.high, high),
    remainder: (state.remainder * 10 + Number(character)) % ranges.modulus,
    // Only numbers that must have a fraction need to know if they have one.
    hasFraction:
      state.hasFraction || (ranges.fractions === 'only' && isFraction && character !== '0'),
  };
}

/** The order of the whole parts, now that all digits are known. */
function wholeOrder(state: NumberState, side: 'low' | 'high', bound: Decimal): Order {
  const difference = state.whole - bound.digits.length;
  return difference === 0 ? state[side] : difference < 0 ? -1 : 1;
}

function isWithin(state: NumberState, ranges: Ranges): boolean {
  const { phase, isNegative, remainder, count } = state;
  const bounds = isNegative ? ranges.negative : ranges.positive;
  if (bounds === null || (ranges.fractions === 'only' && !state.hasFraction)) return false;
  const missing = ranges.decimalsMax === Infinity ? 0 : ranges.decimalsMax - count;
  if ((remainder * 10 ** missing) % ranges.modulus !== 0) return false;
  if (phase === 'start' || phase === 'sign' || phase === 'point') return false;
  const order = (side: 'low' | 'high', bound: Decimal): Order => {
    const known = phase === 'fraction' ? state[side] : wholeOrder(state, side, bound);
    if (known !== 0) return known;
    return /[1-9]/.test(bound.fraction.slice(state.count)) ? -1 : 0;
  };
  const [low, high] = bounds;
  const aboveLow = order('low', low);
  const belowHigh = order('high', high);
  return (
    (aboveLow > 0 || (aboveLow === 0 && !low.exclusive)) &&
    (belowHigh < 0 || (belowHigh === 0 && !high.exclusive))
  );
}

/** Gives the number that all integers among its multiples are multiples of. */
function numerator({ digits, decimals }: Multiple): number {
  return digits / greatestDivisor(digits, 10 ** decimals);
}

/** Tells whether no double is beyond the bound. */
function isUnbounded(bound: Bound | null): boolean {
  return bound === null || (Math.abs(bound.value) === Number.MAX_VALUE && !bound.exclusive);
}

/** The shortest decimal that is this double, in its parts: `whole.fraction` times 10^exponent. */
function decimalParts(value: number): { whole: string; fraction: string; exponent: number } {
  const [mantissa = '', exponent = '0'] = String(value).split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  return { whole, fraction, exponent: Number(exponent) };
}

/** The magnitude of a bound as the shortest decimal that is the same double. */
function decimalOf({ value, exclusive }: Bound): Decimal {
  const { whole, fraction, exponent } = decimalParts(Math.abs(value));
  const shift = exponent;
  if (Math.abs(shift) > exactDigits + 6) {
    throw new GrammarLimitError(`numbers with bounds have at most ${exactDigits} digits`);
  }
  const zeros = '0'.repeat(Math.abs(shift));
  const all = shift < 0 ? zeros + whole + fraction : whole + fraction + zeros;
  const point = shift < 0 ? whole.length : whole.length + shift;
  return {
    digits: all.slice(0, point).replace(/^0+(?=\d)/, ''),
    fraction: all.slice(point).replace(/0+$/, ''),
    exclusive,
  };
}

function lowestInteger({ value, exclusive }: Bound): bigint {
  const up = BigInt(Math.ceil(value));
  return exclusive && Number.isInteger(value) ? up + 1n : up;
}

function highestInteger({ value, exclusive }: Bound): bigint {
  const down = BigInt(Math.floor(value));
  return exclusive && Number.isInteger(value) ? down - 1n : down;
}

function larger(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
