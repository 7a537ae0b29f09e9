/**
 * Measures how long texts of one kind take to encode with DeepSeek-V3's tokenizer, for four
 * lengths, each twice the one before it. Whatever the text, the time per byte has to stay about the
 * same.
 */
import { loadavg } from 'node:os';
import { deepseek } from '../gpu-worker/tokenizer/fixture.ts';
import { seededRandom } from '../support/random.ts';
import { recordResult } from './results.ts';

const lengths = [2 ** 18, 2 ** 19, 2 ** 20, 2 ** 21];
/** A kind whose shorter text took so long is not tried with a longer one. */
const secondsMax = 20;
/** Kinds whose name fits the first pattern, or all; each so many times. */
const [wanted = '', given = '3'] = process.argv.slice(2);
const repeats = Number(given);

const random = seededRandom(1);
const repeated = (text: string) => (bytes: number) =>
  text.repeat(Math.floor(bytes / Buffer.byteLength(text)));
const drawn = (from: number, to: number) => (bytes: number) => {
  const characterBytes = Buffer.byteLength(String.fromCodePoint(to));
  const codes = Array.from({ length: bytes / characterBytes }, () => random.integer(from, to));
  return codes.map((code) => String.fromCodePoint(code)).join('');
};

const kinds: Readonly<Record<string, (bytes: number) => string>> = {
  words: repeated('The quick brown fox jumps over the lazy dog, again. '),
  blanks: repeated(' '),
  tabs: repeated('\t'),
  'line ends': repeated('\n'),
  'blanks and line ends': repeated(' \n'),
  'line ends of two characters': repeated('\r\n'),
  'one letter': repeated('a'),
  digits: repeated('1'),
  'random digits': drawn(0x30, 0x39),
  'random letters': drawn(0x61, 0x7a),
  'random ASCII': drawn(0x20, 0x7e),
  punctuation: repeated('!'),
  'random punctuation': drawn(0x21, 0x2f),
  'one ideograph': repeated('中'),
  'random ideographs': drawn(0x4e00, 0x9fa5),
  'random beyond ASCII': drawn(0x800, 0xd7ff),
  emoji: repeated('😀'),
  'combining marks': repeated('e\u0301'),
  'marks alone': repeated('\u0301'),
  'control characters': repeated('\u0001'),
  'random control characters': drawn(0, 0x1f),
  'control tokens': repeated('<｜User｜>'),
};

for (const [name, textOf] of Object.entries(kinds)) {
  if (!new RegExp(wanted).test(name)) continue;
  const usPerByte: Record<string, number> = {};
  let tokens = 0;
  for (const bytes of lengths) {
    const text = textOf(bytes);
    let least = Infinity;
    for (let repeat = 0; repeat < repeats; repeat++) {
      const start = process.threadCpuUsage();
      tokens = deepseek.encode(text, { controlTokens: false }).length;
      const { user, system } = process.threadCpuUsage(start);
      least = Math.min(least, (user + system) / 1_000);
      if (least > secondsMax * 1_000) break;
    }
    usPerByte[`usPerByteAt${bytes / 2 ** 10}KiB`] = Number(((least * 1_000) / bytes).toFixed(3));
    if (least > secondsMax * 1_000) break;
  }
  const load1m = Number((loadavg()[0] ?? 0).toFixed(1));
  console.log(
    name.padEnd(28),
    Object.values(usPerByte).join('  '),
    `${tokens} tokens, load ${load1m}`,
  );
  const figures = { ...usPerByte, tokens, load1m };
  recordResult({ benchmark: 'tokenizer', shapes: { kind: name, repeats }, figures });
}
