/**
 * Facts planted in a book, asked for through the whole system, sparse and dense side by side: 40
 * questions at each length, five to a document, so that each document is read once.
 * `npm run bench -- needles` runs all lengths, which takes hours on two cores;
 * `node test/bench/needles.ts 4 32` those of 4K and 32K.
 */
import { loadavg } from 'node:os';
import { bookText } from '../../infra/book/book-prompt.ts';
import { ask, countTokens } from '../../infra/book/read-book.ts';
import type { BookReader } from '../../infra/book/read-book.ts';
import { openOwnSystem } from '../../infra/own-system.ts';
import { seededRandom } from '../support/random.ts';
import type { Random } from '../support/random.ts';
import { recordResult } from './results.ts';

const lengths = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [4, 32, 64, 128];
const documents = 8;
const questionsPerDocument = 5;
const charactersPerToken = 3.2;

const cities =
  'Oslo Rome Vienna Lisbon Madrid Prague Warsaw Dublin Athens Geneva Porto Turin'.split(' ');
const things = ['access code', 'serial number', 'room number', 'order number', 'locker code'];
const people = 'Marta Ivan Judy Dave Erin Alice Peter Carol Victor Grace'.split(' ');
const places = ['library', 'harbor', 'museum', 'bakery', 'station'];

interface Needle {
  readonly fact: string;
  readonly question: string;
}

function needlesOf(random: Random): Needle[] {
  return Array.from({ length: questionsPerDocument }, (_, index) => {
    const thing = things[index] ?? 'code';
    if (index % 2 === 0) {
      const city = random.choose(cities);
      return {
        fact: `The ${thing} of ${city} is ${random.integer(10_000, 99_999)}.`,
        question: `What is the ${thing} of ${city}?`,
      };
    }
    const [person, city] = [people[index] ?? '', random.choose(cities)];
    return {
      fact: `${person} works at the ${random.choose(places)} in ${city}.`,
      question: `Where does ${person} work?`,
    };
  });
}

/** A passage of the book with the facts at even depths, from its first to its last paragraph. */
function documentOf(characters: number, needles: readonly Needle[], random: Random): string {
  const book = bookText();
  const start = book.indexOf('\n\n', random.integer(0, book.length - characters - 5_000)) + 2;
  const sentences = book.slice(start, start + characters).split(/(?<=\.) /);
  const lines = needles.map(({ fact }, index) => {
    const depth = Math.floor((index / (needles.length - 1)) * sentences.length);
    return { depth, fact };
  });
  return sentences
    .flatMap((sentence, index) => [
      ...lines.filter(({ depth }) => depth === index).map(({ fact }) => fact),
      sentence,
    ])
    .concat(lines.filter(({ depth }) => depth === sentences.length).map(({ fact }) => fact))
    .join(' ');
}

async function askAll(reader: BookReader, thousands: number) {
  const { signal } = new AbortController();
  let right = 0;
  let tokens = 0;
  let seconds = 0;
  for (let index = 0; index < documents; index++) {
    const random = seededRandom(thousands * 100 + index);
    const needles = needlesOf(random);
    const text = documentOf(thousands * 1_000 * charactersPerToken, needles, random);
    for (const { fact, question } of needles) {
      const prompt = `${text}\n\n${question}`;
      // One after the other: they are timed.
      // oxlint-disable-next-line no-await-in-loop
      const answer = await ask(reader, prompt, signal);
      if (answer.text.trim() === fact) right++;
      seconds += answer.seconds;
    }
    // oxlint-disable-next-line no-await-in-loop
    tokens += await countTokens(reader, text, signal);
  }
  return { right, tokens: Math.round(tokens / documents), seconds: Math.round(seconds) };
}

const questions = documents * questionsPerDocument;
const most = Math.max(...lengths) * 1_250 + 4_096;
for (const attention of ['sparse', 'dense'] as const) {
  // oxlint-disable-next-line no-await-in-loop
  await using system = await openOwnSystem({
    SIFT_ATTENTION: attention,
    SIFT_LOG_LEVEL: 'error',
    SIFT_CACHE_TOKENS: String(most),
  });
  for (const thousands of lengths) {
    // oxlint-disable-next-line no-await-in-loop
    const { right, tokens, seconds } = await askAll(system.reader, thousands);
    console.log(
      `${attention}, ${tokens} tokens: ${right} of ${questions} right, ${seconds} s, ` +
        `load average ${loadavg()[0]?.toFixed(1)}`,
    );
    recordResult({
      benchmark: 'needles',
      shapes: { model: 'tiny', backend: system.backend, attention, tokens, questions },
      figures: { right, seconds },
    });
  }
}
process.exit(0);
