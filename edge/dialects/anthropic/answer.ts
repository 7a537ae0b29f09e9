/** A whole message in Anthropic's shape out of the chunks of a chat completion. */
import { billFields } from '../answer-format.ts';
import type { AnswerBuilder, AnswerHead } from '../answer-format.ts';
import { toAnthropicUsage } from './usage.ts';

export interface StopReason {
  readonly stop_reason: 'end_turn' | 'max_tokens' | 'stop_sequence' | 'tool_use' | 'refusal';
  readonly stop_sequence: string | null;
}

/** A request's wishes for the form of its answer. */
export interface AnswerOptions {
  /** The thinking blocks of the answer are empty. */
  readonly hidesThinking: boolean;
}

/** `stopReason` is the request's own stop string or token that matched, if one did. */
export function toStopReason(finishReason: string | null, stopReason: unknown): StopReason {
  if (finishReason === 'length') return { stop_reason: 'max_tokens', stop_sequence: null };
  if (finishReason === 'tool_calls') return { stop_reason: 'tool_use', stop_sequence: null };
  if (finishReason === 'content_filter') return { stop_reason: 'refusal', stop_sequence: null };
  if (typeof stopReason === 'string') {
    return { stop_reason: 'stop_sequence', stop_sequence: stopReason };
  }
  return { stop_reason: 'end_turn', stop_sequence: null };
}

export function createAnthropicAnswer(head: AnswerHead, options: AnswerOptions): AnswerBuilder {
  const { hidesThinking } = options;
  let thinking = '';
  let text = '';
  let stop = toStopReason(null, null);
  const calls: { id: string; name: string; arguments: string }[] = [];

  return {
    add(chunk) {
      for (const choice of chunk.choices) {
        thinking += choice.delta?.reasoning_content ?? '';
        text += choice.delta?.content ?? '';
        for (const part of choice.delta?.tool_calls ?? []) {
          const { id = '', function: piece } = part;
          const call = (calls[part.index] ??= { id, name: piece.name ?? '', arguments: '' });
          call.arguments += piece.arguments;
        }
        if (choice.finish_reason) stop = toStopReason(choice.finish_reason, choice.stop_reason);
      }
    },

    finish: ({ usage, ...bill }) => ({
      id: head.id,
      type: 'message',
      role: 'assistant',
      model: head.model,
      content: [
        ...(thinking === ''
          ? []
          : [{ type: 'thinking', thinking: hidesThinking ? '' : thinking, signature: '' }]),
        ...(text === '' ? [] : [{ type: 'text', text }]),
        ...calls.flatMap((call) => ({
          type: 'tool_use',
          id: call.id,
          name: call.name,
          input: parseInput(call.arguments),
        })),
      ],
      ...stop,
      usage: { ...toAnthropicUsage(usage), ...billFields(bill) },
    }),

    reply: () =>
      thinking === '' && calls.length === 0 ? { role: 'assistant', content: text } : null,
  };
}

/** A model may write arguments that are no JSON object; the client then gets an empty one. */
function parseInput(text: string): object {
  try {
    const input: unknown = JSON.parse(text);
    return typeof input === 'object' && input !== null ? input : {};
  } catch {
    return {};
  }
}
