/** The items of an answer as clients read them, and the events that open and close them. */
import { WrittenItems } from '../../../gpu-worker/protocol/json-pieces.ts';
import { sealReasoning } from './reasoning-text.ts';

/** An event of a stream without its number. */
export interface ItemEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface ItemOptions {
  /** Reasoning is shown as its summary, and else as its text. */
  readonly summary: boolean;
  readonly encryptedReasoning: boolean;
}

export type Status = 'in_progress' | 'completed' | 'incomplete';

export interface ItemHead {
  readonly id: string;
  readonly outputIndex: number;
  status: Status;
}
export interface ReasoningItem extends ItemHead {
  readonly kind: 'reasoning';
  text: string;
}
export interface MessageItem extends ItemHead {
  readonly kind: 'message';
  text: string;
  readonly logprobs: WrittenItems;
}
export interface CallItem extends ItemHead {
  readonly kind: 'call';
  readonly callIndex: number;
  readonly callId: string;
  readonly name: string;
  arguments: string;
}
export type Item = ReasoningItem | MessageItem | CallItem;

export function toWire(item: Item, options: ItemOptions): object {
  const { id, status } = item;
  switch (item.kind) {
    case 'reasoning':
      return {
        id,
        type: 'reasoning',
        status,
        summary: options.summary ? [{ type: 'summary_text', text: item.text }] : [],
        ...(!options.summary && { content: [{ type: 'reasoning_text', text: item.text }] }),
        ...(options.encryptedReasoning && { encrypted_content: sealReasoning(item.text) }),
      };
    case 'message':
      return { id, type: 'message', status, role: 'assistant', content: [textPart(item)] };
    case 'call': {
      const { callId, name, arguments: json } = item;
      return { id, type: 'function_call', status, call_id: callId, name, arguments: json };
    }
  }
}

function textPart({ text, logprobs }: Pick<MessageItem, 'text' | 'logprobs'>): object {
  return { type: 'output_text', text, annotations: [], logprobs };
}

const emptyText = { text: '', logprobs: new WrittenItems() };

/** An item begins without its content, of which the next events tell. */
export function openingOf(item: Item, options: ItemOptions): ItemEvent[] {
  const at = { output_index: item.outputIndex };
  const { id } = item;
  const added = (fields: object): ItemEvent => ({
    type: 'response.output_item.added',
    ...at,
    item: { ...toWire(item, options), ...fields },
  });
  switch (item.kind) {
    case 'reasoning': {
      const bare = {
        summary: [],
        ...(!options.summary && { content: [] }),
        ...(options.encryptedReasoning && { encrypted_content: null }),
      };
      return [added(bare), ...partEvent('added', item, options)];
    }
    case 'message':
      return [
        added({ content: [] }),
        {
          type: 'response.content_part.added',
          item_id: id,
          ...at,
          content_index: 0,
          part: textPart(emptyText),
        },
      ];
    case 'call':
      return [added({})];
  }
}

export function closingOf(item: Item, options: ItemOptions): ItemEvent[] {
  const at = { item_id: item.id, output_index: item.outputIndex };
  const done: ItemEvent = {
    type: 'response.output_item.done',
    output_index: item.outputIndex,
    item: toWire(item, options),
  };
  switch (item.kind) {
    case 'reasoning':
      return [
        {
          type: reasoningEvent(options, 'done'),
          ...reasoningAt(item, options),
          text: item.text,
        },
        ...partEvent('done', item, options),
        done,
      ];
    case 'message': {
      const inPart = { ...at, content_index: 0 };
      const { text, logprobs } = item;
      return [
        { type: 'response.output_text.done', ...inPart, text, logprobs },
        { type: 'response.content_part.done', ...inPart, part: textPart(item) },
        done,
      ];
    }
    case 'call': {
      const { name, arguments: json } = item;
      const type = 'response.function_call_arguments.done';
      return [{ type, ...at, name, arguments: json }, done];
    }
  }
}

/** The event that a part of reasoning begins or ends, whichever way it is shown. */
function partEvent(what: 'added' | 'done', item: ReasoningItem, options: ItemOptions): ItemEvent[] {
  const text = what === 'done' ? item.text : '';
  const at = reasoningAt(item, options);
  return options.summary
    ? [
        {
          type: `response.reasoning_summary_part.${what}`,
          ...at,
          part: { type: 'summary_text', text },
        },
      ]
    : [{ type: `response.content_part.${what}`, ...at, part: { type: 'reasoning_text', text } }];
}

export function reasoningEvent({ summary }: ItemOptions, what: 'delta' | 'done'): string {
  return `response.reasoning_${summary ? 'summary_text' : 'text'}.${what}`;
}

export function reasoningAt({ id, outputIndex }: ReasoningItem, { summary }: ItemOptions): object {
  const at = { item_id: id, output_index: outputIndex };
  return summary ? { ...at, summary_index: 0 } : { ...at, content_index: 0 };
}
