/**
 * The items of an answer (reasoning, message, function calls) out of the chunks of a chat
 * completion, and the events of a stream that tell how they grow. Each is opened, filled and closed
 * before the next; only a call whose arguments are not yet whole stays open beside others.
 */
import { WrittenItems } from '../../../gpu-worker/protocol/json-pieces.ts';
import type { Choice, ToolCallPiece } from '../../engines/chunk.ts';
import { closingOf, openingOf, reasoningAt, reasoningEvent, toWire } from './item-events.ts';
import type { CallItem, Item, ItemEvent, ItemHead, ItemOptions, Status } from './item-events.ts';

export interface AnswerItems {
  add(choice: Choice): ItemEvent[];
  /** Closes what is open, of an answer that is whole or was cut. */
  close(status: 'completed' | 'incomplete'): ItemEvent[];
  toWire(): object[];
  /** The text of an answer that is one message and nothing else; null of any other. */
  onlyText(): string | null;
}

export function createAnswerItems(requestId: string, options: ItemOptions): AnswerItems {
  const list = createList(requestId, options);

  const addReasoning = (delta: string): ItemEvent[] => {
    const { item, events } = list.enter('reasoning', () => ({
      kind: 'reasoning',
      ...list.head('rs'),
      text: '',
    }));
    item.text += delta;
    const type = reasoningEvent(options, 'delta');
    return [...events, { type, ...reasoningAt(item, options), delta }];
  };

  const addText = (delta: string, logprobs: readonly unknown[]): ItemEvent[] => {
    const { item, events } = list.enter('message', () => ({
      kind: 'message',
      ...list.head('msg'),
      text: '',
      logprobs: new WrittenItems(),
    }));
    item.text += delta;
    for (const each of logprobs) item.logprobs.push(each);
    const at = { item_id: item.id, output_index: item.outputIndex, content_index: 0 };
    return [...events, { type: 'response.output_text.delta', ...at, delta, logprobs }];
  };

  const addCall = ({ index, id = '', function: piece }: ToolCallPiece): ItemEvent[] => {
    const events: ItemEvent[] = [];
    let call = list.openCall(index);
    if (call === undefined) {
      events.push(...list.close(list.items.filter(isWhole), 'completed'));
      const { name = '' } = piece;
      const head = list.head('fc');
      call = { kind: 'call', ...head, callIndex: index, callId: id, name, arguments: '' };
      events.push(...list.begin(call));
    }
    const { arguments: delta } = piece;
    if (delta === '') return events;
    call.arguments += delta;
    const at = { item_id: call.id, output_index: call.outputIndex };
    return [...events, { type: 'response.function_call_arguments.delta', ...at, delta }];
  };

  return {
    add({ delta = {}, logprobs }) {
      const { reasoning_content: reasoning, content, tool_calls: calls = [] } = delta;
      return [
        ...(reasoning ? addReasoning(reasoning) : []),
        ...(content ? addText(content, logprobs?.['content'] ?? []) : []),
        ...calls.flatMap(addCall),
      ];
    },
    close: (status) => list.close(list.items, status),
    toWire: () => list.items.map((item) => toWire(item, options)),
    onlyText() {
      const [only, ...others] = list.items;
      return only?.kind === 'message' && others.length === 0 ? only.text : null;
    },
  };
}

/** Items in the order in which they began; those in progress are open. */
function createList(requestId: string, options: ItemOptions) {
  const items: Item[] = [];
  const isOpen = (item: Item): boolean => item.status === 'in_progress';

  const begin = (item: Item): ItemEvent[] => {
    items.push(item);
    return openingOf(item, options);
  };
  const close = (which: readonly Item[], status: Status): ItemEvent[] =>
    which.filter(isOpen).flatMap((item) => {
      item.status = status;
      return closingOf(item, options);
    });

  return {
    items,
    begin,
    close,
    head: (prefix: string): ItemHead => ({
      id: `${prefix}_${requestId}_${items.length}`,
      outputIndex: items.length,
      status: 'in_progress',
    }),
    /** The last item, if it is open and of that kind; else a new one, with the others closed. */
    enter<Kind extends Item['kind']>(
      kind: Kind,
      make: () => Extract<Item, { kind: Kind }>,
    ): { item: Extract<Item, { kind: Kind }>; events: ItemEvent[] } {
      const last = items.at(-1);
      if (last !== undefined && isOpen(last) && isOfKind(last, kind)) {
        return { item: last, events: [] };
      }
      const closing = close(items, 'completed');
      const item = make();
      return { item, events: [...closing, ...begin(item)] };
    },
    openCall: (index: number): CallItem | undefined =>
      items.findLast(
        (item): item is CallItem =>
          item.kind === 'call' && item.callIndex === index && isOpen(item),
      ),
  };
}

function isOfKind<Kind extends Item['kind']>(
  item: Item,
  kind: Kind,
): item is Extract<Item, { kind: Kind }> {
  return item.kind === kind;
}

/** A call whose arguments are no JSON yet may go on after another call has begun. */
function isWhole(item: Item): boolean {
  if (item.kind !== 'call') return true;
  try {
    JSON.parse(item.arguments);
    return true;
  } catch {
    return false;
  }
}
