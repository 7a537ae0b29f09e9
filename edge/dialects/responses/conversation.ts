/**
 * Turns the items of a conversation into the worker's messages: reasoning, text and calls of one
 * turn of the assistant become one message.
 */
import type { Message, ToolCall } from '../../../gpu-worker/protocol/messages.ts';
import { ApiError } from '../../errors.ts';
import type { Content, Item } from './item-schemas.ts';
import { openReasoning } from './reasoning-text.ts';

/** An item and the parameter that it stands in. */
export interface PlacedItem {
  readonly item: Item;
  readonly param: string;
}

interface Turn {
  reasoning: string;
  content: string | null;
  calls: ToolCall[];
}

/** References are resolved before. @throws ApiError 422 naming the item at fault. */
export function toMessages(instructions: string, items: readonly PlacedItem[]): Message[] {
  const messages: Message[] =
    instructions === '' ? [] : [{ role: 'system', content: instructions }];
  let turn = newTurn();
  const endTurn = (): void => {
    messages.push(...fromTurn(turn));
    turn = newTurn();
  };
  for (const { item, param } of items) {
    if (item.type === 'reasoning') {
      if (turn.content !== null || turn.calls.length > 0) endTurn();
      turn.reasoning += reasoningOf(item, param);
    } else if (item.type === 'function_call') {
      const { call_id: id, name, arguments: json } = item;
      turn.calls.push({ id, type: 'function', function: { name, arguments: json } });
    } else if (item.type === 'message' && item.role === 'assistant') {
      if (turn.content !== null || turn.calls.length > 0) endTurn();
      turn.content = textOf(item.content);
    } else {
      endTurn();
      messages.push(...fromOther(item));
    }
  }
  endTurn();
  return messages;
}

/** @throws ApiError 422 for a result of a call that the conversation does not have. */
export function checkCalls(items: readonly PlacedItem[]): void {
  const called = new Set<string>();
  for (const { item, param } of items) {
    if (item.type === 'function_call') called.add(item.call_id);
    if (item.type !== 'function_call_output' || called.has(item.call_id)) continue;
    throw new ApiError(
      'invalid_value',
      `Invalid '${param}.call_id': no function_call before it has the call_id '${item.call_id}'.`,
      { param: `${param}.call_id` },
    );
  }
}

function newTurn(): Turn {
  return { reasoning: '', content: null, calls: [] };
}

/** Reasoning that nothing follows says nothing to the model. */
function fromTurn({ reasoning, content, calls }: Turn): Message[] {
  if (content === null && calls.length === 0) return [];
  return [
    {
      role: 'assistant',
      content,
      ...(reasoning !== '' && { reasoning_content: reasoning }),
      ...(calls.length > 0 && { tool_calls: calls }),
    },
  ];
}

function fromOther(
  item: Exclude<Item, { type: 'reasoning' } | { type: 'function_call' }>,
): Message[] {
  switch (item.type) {
    case 'message':
      return [{ role: item.role, content: textOf(item.content) }];
    case 'function_call_output':
      return [{ role: 'tool', tool_call_id: item.call_id, content: textOf(item.output) }];
    case 'item_reference':
      return [];
  }
}

/** Parts are one text: the chat formats write them one after the other anyway. */
function textOf(content: Content): string {
  if (typeof content === 'string') return content;
  return content.map((part) => (part.type === 'refusal' ? part.refusal : part.text)).join('');
}

/** The text itself goes before what was sealed of it, and that before its summary. */
function reasoningOf(item: Extract<Item, { type: 'reasoning' }>, param: string): string {
  const { content, encrypted_content: sealed, summary } = item;
  if (content?.length) return content.map(({ text }) => text).join('');
  if (sealed == null) return summary.map(({ text }) => text).join('\n');
  const text = openReasoning(sealed);
  if (text !== null) return text;
  throw new ApiError(
    'invalid_value',
    `Invalid '${param}.encrypted_content': it is not of an answer of this API.`,
    { param: `${param}.encrypted_content` },
  );
}
