/** What writes an answer in the style that its request asks for. */
import { createAnthropicAnswer } from './anthropic/anthropic-answer.ts';
import { createAnthropicEncoder } from './anthropic/anthropic-events.ts';
import { createChatAnswer } from './openai/chat-answer.ts';
import type { AnswerBuilder, AnswerHead, StreamEncoder } from './chunk.ts';
import { createOpenAiEncoder } from './openai/openai-events.ts';
import { createTextAnswer } from './openai/text-answer.ts';
import type { AnswerStyle } from './inference-request.ts';

export interface AnswerFormat {
  /** Goes before the request's id in the answer's id. */
  readonly idPrefix: string;
  encoder(head: AnswerHead, requestId: string): StreamEncoder;
  builder(head: AnswerHead): AnswerBuilder;
}

export function formatOf(style: AnswerStyle): AnswerFormat {
  if (style.protocol === 'messages') {
    return {
      idPrefix: 'msg_',
      encoder: (head, requestId) => createAnthropicEncoder(head, requestId, style),
      builder: (head) => createAnthropicAnswer(head, style),
    };
  }
  const tier = style.tier === null ? {} : { service_tier: style.tier };
  const encoder = (head: AnswerHead) => createOpenAiEncoder({ ...head, ...tier }, style);
  return style.protocol === 'text'
    ? { idPrefix: 'cmpl-', encoder, builder: createTextAnswer }
    : {
        idPrefix: 'chatcmpl-',
        encoder,
        builder: (head) => createChatAnswer({ ...head, ...tier }),
      };
}
