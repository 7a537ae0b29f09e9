/** A whole completion (the older, text-in text-out API) out of its chunks. */
import { z } from 'zod';
import type { AnswerBuilder, AnswerHead } from './chunk.ts';
import { toOpenAiUsage } from './usage-formats.ts';

const textChoiceSchema = z.looseObject({
  index: z.int().min(0).max(1024).default(0),
  text: z.string().default(''),
  /** Parallel arrays, each to be appended to. */
  logprobs: z.record(z.string(), z.array(z.unknown()).nullish()).nullish(),
});

interface Choice {
  text: string;
  logprobs: Record<string, unknown[] | null> | null;
  /** finish_reason, stop_reason, prompt_logprobs: the last one that was said stands. */
  rest: Record<string, unknown>;
}

export function createTextAnswer(head: AnswerHead): AnswerBuilder {
  let rest: Readonly<Record<string, unknown>> = {};
  const choices: Choice[] = [];

  return {
    add(chunk) {
      const { id: _i, object: _o, model: _m, usage: _u, choices: deltas, ...others } = chunk;
      rest = { ...rest, ...others };
      for (const each of deltas) {
        const delta = textChoiceSchema.safeParse(each).data;
        if (!delta) continue;
        const { index, text, logprobs, ...said } = delta;
        const choice = (choices[index] ??= { text: '', logprobs: null, rest: {} });
        choice.text += text;
        if (logprobs) append((choice.logprobs ??= {}), logprobs);
        for (const [field, value] of Object.entries(said)) {
          if (value !== null || !(field in choice.rest)) choice.rest[field] = value;
        }
      }
    },

    finish({ usage, costNanoUsd }) {
      const { created, ...others } = rest;
      return {
        id: head.id,
        object: 'text_completion',
        created,
        model: head.model,
        ...others,
        choices: choices.flatMap(({ text, logprobs, rest: said }, index) => ({
          text,
          index,
          logprobs,
          ...said,
        })),
        usage: { ...toOpenAiUsage(usage), cost_nano_usd: costNanoUsd },
      };
    },

    reply: () => null,
  };
}

function append(
  all: Record<string, unknown[] | null>,
  more: Readonly<Record<string, unknown[] | null | undefined>>,
): void {
  for (const [field, values] of Object.entries(more)) {
    if (values) (all[field] ??= []).push(...values);
    else all[field] ??= null;
  }
}
