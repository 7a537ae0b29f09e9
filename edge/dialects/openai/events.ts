/**
 * A streamed answer in OpenAI's shape: the worker's events under the edge's id and the model's
 * public name, with usage where and how the client asked for it.
 */
import { errorBody } from './errors.ts';
import { billFields } from '../answer-format.ts';
import type { AnswerHead, StreamEncoder } from '../answer-format.ts';
import { toOpenAiUsage } from './usage.ts';

export function createOpenAiEncoder(
  head: AnswerHead,
  wants: { readonly usage: boolean; readonly runningUsage: boolean },
): StreamEncoder {
  let last: Readonly<Record<string, unknown>> = { ...head };
  return {
    keepAlive: ': keep-alive\n\n',

    chunk(chunk, usage) {
      const { object, created, choices, ...others } = chunk;
      // The fields keep OpenAI's order: people read streams too.
      const { id, model, ...tier } = head;
      const rest = { id, object, created, model, ...tier, ...others, choices };
      last = rest;
      // An event without choices carries only usage; ours, with the cost, is written by end().
      if (chunk.choices.length === 0) return '';
      if (wants.runningUsage && usage) return frame({ ...rest, usage: toOpenAiUsage(usage) });
      return frame(wants.usage ? { ...rest, usage: null } : rest);
    },

    end({ usage, ...bill }) {
      if (!wants.usage) return 'data: [DONE]\n\n';
      const final = { ...toOpenAiUsage(usage), ...billFields(bill) };
      return `${frame({ ...last, choices: [], usage: final })}data: [DONE]\n\n`;
    },

    error: (error) => frame(errorBody(error)),
  };
}

function frame(value: object): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}
