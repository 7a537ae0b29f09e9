import { expect, test } from 'vitest';
import { toJcs } from '../../../edge/receipts/jcs.ts';

test('the sample of RFC 8785, 3.2, has the bytes that it states', () => {
  const sample = {
    numbers: [Number('333333333.33333329'), 1e30, 4.5, 2e-3, 0.000000000000000000000000001],
    string: '\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\"/',
    literals: [null, true, false],
  };
  expect(toJcs(sample)).toBe(
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],' +
      '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
  );
});

test('names are in the order of their UTF-16 code units, as in RFC 8785, 3.2.3', () => {
  const sample = {
    '\u20ac': 'Euro Sign',
    '\r': 'Carriage Return',
    '\ufb33': 'Hebrew Letter Dalet With Dagesh',
    '1': 'One',
    '\ud83d\ude00': 'Emoji: Grinning Face',
    '\u0080': 'Control',
    '\u00f6': 'Latin Small Letter O With Diaeresis',
  };
  const names = Object.keys(JSON.parse(toJcs(sample)));
  const text = toJcs(sample);
  const order = ['\\r', '1', '\u0080', '\u00f6', '\u20ac', '\ud83d\ude00', '\ufb33'];
  const places = order.map((name) => text.indexOf(`"${name}":`));
  expect(places).toEqual(places.toSorted((a, b) => a - b));
  expect(names).toHaveLength(7);
});

test.each([
  [Number.NaN, 'no such number'],
  [Number.POSITIVE_INFINITY, 'no such number'],
  ['\ud800', 'half a character'],
])('%s has no form', (value, why) => {
  expect(() => toJcs([value])).toThrow(why);
});
