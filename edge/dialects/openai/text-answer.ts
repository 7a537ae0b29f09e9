/** A whole completion (the older, text-in text-out API) out of its chunks. */
import { WrittenItems } from '../../../gpu-worker/protocol/json-pieces.ts';
import type { Choice, Chunk, Logprobs } from '../../engines/chunk.ts';
import { billFields } from '../answer-format.ts';
import type { AnswerBuilder, AnswerHead } from '../answer-format.ts';
import { toOpenAiUsage } from './usage.ts';

interface TextChoice {
  text: string;
  logprobs: Record<string, WrittenItems | null> | null;
  /** The last reason and stop that were stated stand. */
  last: Pick<Choice, 'finish_reason' | 'stop_reason' | 'stopped_by' | 'prompt_logprobs'>;
}

export function createTextAnswer(head: AnswerHead): AnswerBuilder {
  let rest: Omit<Chunk, 'choices'> = {};
  const choices: TextChoice[] = [];

  return {
    add(chunk) {
      const { choices: pieces, ...others } = chunk;
      rest = { ...rest, ...others };
      for (const { index, text = '', logprobs, delta: _delta, ...stated } of pieces) {
        const choice = (choices[index] ??= {
          text: '',
          logprobs: null,
          last: { finish_reason: null },
        });
        choice.text += text;
        if (logprobs) append((choice.logprobs ??= {}), logprobs);
        const finish_reason = stated.finish_reason ?? choice.last.finish_reason;
        choice.last = { ...choice.last, ...stated, finish_reason };
      }
    },

    finish({ usage, ...bill }) {
      const { created, object: _object, ...others } = rest;
      return {
        id: head.id,
        object: 'text_completion',
        created,
        model: head.model,
        ...others,
        choices: choices.flatMap(({ text, logprobs, last }, index) => ({
          text,
          index,
          logprobs,
          ...last,
        })),
        usage: { ...toOpenAiUsage(usage), ...billFields(bill) },
      };
    },

    reply: () => null,
  };
}

function append(all: Record<string, WrittenItems | null>, more: Logprobs): void {
  for (const [field, values] of Object.entries(more)) {
    const kept = (all[field] ??= values && new WrittenItems());
    for (const value of values ?? []) kept?.push(value);
  }
}
