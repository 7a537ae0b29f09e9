/** Grammars over a vocabulary, and random answers in them. */
import { at } from '../../../gpu-worker/at.ts';
import { GrammarLimitError } from '../../../gpu-worker/grammar/dfa.ts';
import { GrammarBuilder } from '../../../gpu-worker/grammar/grammar.ts';
import type { Grammar } from '../../../gpu-worker/grammar/grammar.ts';
import { JsonWriter } from '../../../gpu-worker/grammar/json-schema.ts';
import { SchemaError } from '../../../gpu-worker/grammar/schema-keywords.ts';
import { Matcher } from '../../../gpu-worker/grammar/matcher.ts';
import { Vocabulary } from '../../../gpu-worker/grammar/vocabulary.ts';
import type { Tokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';

/** Null if the schema allows nothing, `endless` if a value may begin with itself. */
export function schemaGrammar(schema: unknown): Grammar | null | 'endless' {
  const builder = new GrammarBuilder();
  const writer = new JsonWriter(builder);
  const [start, end] = [builder.node(), builder.node({ isFinal: true })];
  writer.schema(start, schema, end);
  return builder.build(start);
}

/** Null if no value fits it, or if it says what can't be kept. */
export function keptGrammar(schema: unknown): Grammar | null {
  try {
    const grammar = schemaGrammar(schema);
    return grammar === 'endless' ? null : grammar;
  } catch (error) {
    if (error instanceof SchemaError || error instanceof GrammarLimitError) return null;
    throw error;
  }
}

export function objectGrammar(): Grammar {
  const builder = new GrammarBuilder();
  const [start, end] = [builder.node(), builder.node({ isFinal: true })];
  new JsonWriter(builder).object(start, end);
  const grammar = builder.build(start);
  if (grammar === null || grammar === 'endless') throw new Error('there are objects');
  return grammar;
}

export function matcherOf(tokenizer: Tokenizer, vocabSize: number): Matcher {
  const control = new Set(tokenizer.controlTokens.values());
  const vocabulary = new Vocabulary({
    size: vocabSize,
    tokenBytes: (token) => tokenizer.tokenBytes(token),
    isControl: (token) => control.has(token),
  });
  return new Matcher(vocabulary, tokenizer.endTokens);
}

export function tokensOfMask(mask: Uint32Array): number[] {
  const tokens: number[] = [];
  for (let word = 0; word < mask.length; word++) {
    for (let bits = at(mask, word); bits !== 0; bits &= bits - 1) {
      tokens.push(word * 32 + 31 - Math.clz32(bits & -bits));
    }
  }
  return tokens;
}
