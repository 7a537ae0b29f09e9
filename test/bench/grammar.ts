/**
 * Measures what holding an answer to a schema costs the engine, at the vocabulary of DeepSeek-V3:
 * compiling, the first masks (a walk over the vocabulary per kind of terminal, once), and masks
 * after that.
 */
import { createSamplerScratch, sampleToken } from '../../gpu-worker/engine/sampler.ts';
import { plainSampling } from '../support/worker/engine-driver.ts';
import {
  matcherOf,
  objectGrammar,
  schemaGrammar,
  tokensOfMask,
} from '../support/schemas/grammar-walk.ts';
import { deepseek } from '../gpu-worker/tokenizer/fixture.ts';
import { median, recordResult } from './results.ts';

const vocabSize = 129_280;
const answers = 20;
const tokensEach = 200;

const string = { type: 'string' };
const step = {
  type: 'object',
  properties: { explanation: string, output: string },
  required: ['explanation', 'output'],
  additionalProperties: false,
};
const schemas: Record<string, object | null> = {
  object: null,
  steps: {
    type: 'object',
    properties: { steps: { type: 'array', items: step }, answer: { enum: ['a', 'b', 'c'] } },
    required: ['steps', 'answer'],
    additionalProperties: false,
  },
  sixtyProperties: {
    type: 'object',
    properties: Object.fromEntries(
      Array.from({ length: 60 }, (_, index) => [
        `property_${index}`,
        { anyOf: [string, { type: 'number' }, { type: 'null' }] },
      ]),
    ),
    additionalProperties: false,
  },
  boundedString: { type: 'string', maxLength: 100 },
};

const begunMs = performance.now();
const matcher = matcherOf(deepseek, vocabSize);
const figures: Record<string, number> = { vocabularyMs: performance.now() - begunMs };
for (const [name, schema] of Object.entries(schemas)) {
  const compileMs: number[] = [];
  let grammar = objectGrammar();
  for (let run = 0; run < 7; run++) {
    const startMs = performance.now();
    const built = schema === null ? objectGrammar() : schemaGrammar(schema);
    compileMs.push(performance.now() - startMs);
    if (built !== null && built !== 'endless') grammar = built;
  }
  const first = walk(grammar, 1);
  const later = Array.from({ length: answers }, (_, run) => walk(grammar, 2 + run)).flat();
  const sorted = later.toSorted((a, b) => a - b);
  figures[`${name}CompileMs`] = median(compileMs);
  figures[`${name}FirstAnswerMs`] = first.reduce((sum, each) => sum + each, 0);
  figures[`${name}FirstAnswerMaxMs`] = Math.max(...first);
  figures[`${name}MaskMicros`] = median(later) * 1000;
  figures[`${name}MaskP99Micros`] = (sorted[Math.floor(sorted.length * 0.99)] ?? 0) * 1000;
}
figures.drawMicros = drawMicros(null);
figures.drawAllowedMicros = drawMicros(new Uint32Array(vocabSize / 32).fill(0xffff0000));
console.table(figures);
recordResult({
  benchmark: 'grammar',
  shapes: { vocabSize, answers, tokensEach },
  figures: Object.fromEntries(
    Object.entries(figures).map(([name, value]) => [name, Number(value.toPrecision(3))]),
  ),
});

/** Milliseconds per token, mask and advance together, of a random answer. */
function walk(grammar: ReturnType<typeof objectGrammar>, seed: number): number[] {
  const cursor = matcher.start(grammar);
  const times: number[] = [];
  let state = seed;
  for (let count = 0; count < tokensEach; count++) {
    const startMs = performance.now();
    const mask = cursor.mask();
    const maskedMs = performance.now();
    const tokens = mask === null ? [] : tokensOfMask(mask);
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const token = tokens[(state >>> 4) % tokens.length];
    if (token === undefined || deepseek.endTokens.includes(token)) break;
    const drawnMs = performance.now();
    cursor.advance(token, deepseek.tokenBytes(token));
    times.push(maskedMs - startMs + performance.now() - drawnMs);
  }
  return times;
}

/** One greedy token of a row, with or without a mask. */
function drawMicros(allowed: Uint32Array | null): number {
  const row = Float32Array.from({ length: vocabSize }, (_, token) => Math.sin(token * 1.7));
  const scratch = createSamplerScratch(vocabSize);
  const times = Array.from({ length: 200 }, () => {
    const startMs = performance.now();
    sampleToken(row, plainSampling, { history: null, allowed }, () => 0, scratch);
    return performance.now() - startMs;
  });
  return median(times) * 1000;
}
