/**
 * JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, which is what models were
 * trained on: a space behind commas and colons, and Python's own way to write floats.
 */

/** Matches one token of valid JSON; white space between tokens matches nothing. */
const jsonToken = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:]/g;

/** @throws RangeError where it nests deeper than the stack reaches. */
export function pythonJson(value: unknown): string {
  return (JSON.stringify(value).match(jsonToken) ?? []).map(pythonToken).join('');
}

export interface JsonMember {
  readonly key: string;
  /** The text of a string; null for any other value. */
  readonly text: string | null;
  /** The value as Python writes it. */
  readonly json: string;
}

/**
 * The members of an object in the order of the text, which JavaScript's own objects do not keep.
 * Of members with one key the last counts. Null where the text is no JSON object.
 */
export function jsonMembers(text: string): readonly JsonMember[] | null {
  if (!isObjectText(text)) return null;
  const members = new Map<string, JsonMember>();
  let depth = 0;
  let key: string | null = null;
  let value: string[] = [];
  const complete = (): void => {
    if (key === null) return;
    const [only] = value;
    const isString = value.length === 1 && only?.startsWith('"') === true;
    const json = value.map(pythonToken).join('');
    members.set(key, { key, text: isString ? String(JSON.parse(only)) : null, json });
    key = null;
    value = [];
  };
  for (const [token] of text.matchAll(jsonToken)) {
    if (token === '}' || token === ']') depth--;
    if (depth === 0 || (depth === 1 && token === ',')) complete();
    else if (depth === 1 && key === null) key = String(JSON.parse(token));
    else if (depth > 1 || token !== ':' || value.length > 0) value.push(token);
    if (token === '{' || token === '[') depth++;
  }
  return [...members.values()];
}

function isObjectText(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

function pythonToken(token: string): string {
  if (token === ',' || token === ':') return `${token} `;
  if (token.startsWith('"')) return JSON.stringify(JSON.parse(token));
  if (/^-?\d+$/.test(token)) return token === '-0' ? '0' : token;
  return /^[-\d]/.test(token) ? pythonFloat(Number(token)) : token;
}

/** Python's `repr`: the shortest digits, with an exponent below 1e-4 and from 1e16 on. */
function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? 'Infinity' : '-Infinity';
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const [mantissa = '0', power = '0'] = Math.abs(value).toExponential().split('e');
  const digits = mantissa.replace('.', '');
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const written = `${mantissa}e${exponent < 0 ? '-' : '+'}`;
    return `${sign}${written}${String(Math.abs(exponent)).padStart(2, '0')}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`;
}
