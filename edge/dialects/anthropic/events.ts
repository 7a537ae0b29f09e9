/**
 * A streamed answer in Anthropic's shape, out of the chunks of a chat completion: one message of
 * numbered blocks (thinking, text, tool use), each opened, filled and closed before the next.
 */
import type { Choice } from '../../engines/chunk.ts';
import { errorBody } from './errors.ts';
import type { Usage } from '../../money.ts';
import { toStopReason, type AnswerOptions } from './answer.ts';
import type { AnswerHead, StreamEncoder } from '../answer-format.ts';
import { noUsage } from '../../money.ts';
import { toAnthropicUsage } from './usage.ts';

/**
 * Before any count is known; clients keep what stands here where the end of the stream says null.
 */
const uncounted = { ...noUsage, inputCached: null };

export function createAnthropicEncoder(
  head: AnswerHead,
  requestId: string,
  { hidesThinking }: AnswerOptions,
): StreamEncoder {
  let started = false;
  /** The kind of the open block: 'thinking', 'text' or 'tool 0', 'tool 1', ... */
  let open: string | null = null;
  let blocks = 0;
  let stop = toStopReason(null, null);

  const start = (usage: Usage): string => {
    if (started) return '';
    started = true;
    const message = {
      id: head.id,
      type: 'message',
      role: 'assistant',
      model: head.model,
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: toAnthropicUsage(usage),
    };
    return frame('message_start', { message }) + frame('ping', {});
  };

  const close = (): string => {
    if (open === null) return '';
    open = null;
    return frame('content_block_stop', { index: blocks++ });
  };

  const enter = (kind: string, block: object): string => {
    if (open === kind) return '';
    const closing = close();
    open = kind;
    return closing + frame('content_block_start', { index: blocks, content_block: block });
  };

  const fill = (delta: object): string => frame('content_block_delta', { index: blocks, delta });

  const choiceText = (choice: Choice): string => {
    const { reasoning_content: thinking, content: text, tool_calls: calls } = choice.delta ?? {};
    let out = '';
    if (thinking) {
      out += enter('thinking', { type: 'thinking', thinking: '', signature: '' });
      if (!hidesThinking) out += fill({ type: 'thinking_delta', thinking });
    }
    if (text) {
      out += enter('text', { type: 'text', text: '' });
      out += fill({ type: 'text_delta', text });
    }
    for (const call of calls ?? []) {
      const { name, arguments: json } = call.function;
      const block = { type: 'tool_use', id: call.id ?? '', name: name ?? '', input: {} };
      out += enter(`tool ${call.index}`, block);
      if (json) out += fill({ type: 'input_json_delta', partial_json: json });
    }
    if (choice.finish_reason) stop = toStopReason(choice.finish_reason, choice.stop_reason);
    return out;
  };

  return {
    keepAlive: frame('ping', {}),

    chunk: (chunk, usage) => start(usage ?? uncounted) + chunk.choices.map(choiceText).join(''),

    end({ usage, costNanoUsd }) {
      const final = { ...toAnthropicUsage(usage), cost_nano_usd: costNanoUsd };
      return (
        start(usage) +
        close() +
        frame('message_delta', { delta: stop, usage: final }) +
        frame('message_stop', {})
      );
    },

    error: (error) => `event: error\ndata: ${JSON.stringify(errorBody(error, requestId))}\n\n`,
  };
}

function frame(type: string, fields: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
}
