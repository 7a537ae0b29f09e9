/**
 * A streamed answer in Anthropic's shape, out of the chunks of a chat completion: one message of
 * numbered blocks (thinking, text, tool use), each opened, filled and closed before the next.
 */
import type { Choice } from '../../engines/chunk.ts';
import { errorBody } from './errors.ts';
import type { Usage } from '../../money.ts';
import { toStopReason } from './answer.ts';
import type { AnswerOptions } from './answer.ts';
import { billFields } from '../answer-format.ts';
import type { AnswerHead, StreamEncoder } from '../answer-format.ts';
import { noUsage } from '../../money.ts';
import { toAnthropicUsage } from './usage.ts';

/** The usage before any count is known; clients keep it where the end of the stream says null. */
const uncounted = { ...noUsage, inputCached: null };

export function createAnthropicEncoder(
  head: AnswerHead,
  requestId: string,
  { hidesThinking }: AnswerOptions,
): StreamEncoder {
  let started = false;
  const blocks = createBlocks();
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

  const choiceText = (choice: Choice): string => {
    const { reasoning_content: thinking, content: text, tool_calls: calls } = choice.delta ?? {};
    let out = '';
    if (thinking) {
      out += blocks.enter('thinking', { type: 'thinking', thinking: '', signature: '' });
      if (!hidesThinking) out += blocks.write({ type: 'thinking_delta', thinking });
    }
    if (text) {
      out += blocks.enter('text', { type: 'text', text: '' });
      out += blocks.write({ type: 'text_delta', text });
    }
    for (const call of calls ?? []) {
      const { name, arguments: json } = call.function;
      const block = { type: 'tool_use', id: call.id ?? '', name: name ?? '', input: {} };
      out += blocks.enter(`tool ${call.index}`, block);
      if (json) out += blocks.write({ type: 'input_json_delta', partial_json: json });
    }
    if (choice.finish_reason) stop = toStopReason(choice.finish_reason, choice.stop_reason);
    return out;
  };

  return {
    keepAlive: frame('ping', {}),

    chunk: (chunk, usage) => start(usage ?? uncounted) + chunk.choices.map(choiceText).join(''),

    end({ usage, ...bill }) {
      const final = { ...toAnthropicUsage(usage), ...billFields(bill) };
      return (
        start(usage) +
        blocks.close() +
        frame('message_delta', { delta: stop, usage: final }) +
        frame('message_stop', {})
      );
    },

    error: (error) => `event: error\ndata: ${JSON.stringify(errorBody(error, requestId))}\n\n`,
  };
}

/** Writes numbered blocks, of which one is open at a time. */
function createBlocks() {
  /** 'thinking', 'text' or 'tool 0', 'tool 1', ... */
  let open: string | null = null;
  let index = 0;

  const close = (): string => {
    if (open === null) return '';
    open = null;
    return frame('content_block_stop', { index: index++ });
  };

  return {
    close,
    /** Opens a block of that kind, unless it is open. */
    enter(kind: string, block: object): string {
      if (open === kind) return '';
      const closing = close();
      open = kind;
      return closing + frame('content_block_start', { index, content_block: block });
    },
    write: (delta: object): string => frame('content_block_delta', { index, delta }),
  };
}

function frame(type: string, fields: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
}
