/** Items that the tenant has stored, in the place where a request names them. */
import { strict as assert } from 'node:assert';
import { z } from 'zod';
import type { EarlierItems } from '../inference-request.ts';
import type { PlacedItem } from './conversation.ts';
import { itemSchema } from './item-schemas.ts';
import type { Item } from './item-schemas.ts';

const itemsSchema = z.array(itemSchema);

/** The items of the responses that the request goes on from, oldest first. */
export function earlierItems(earlier: EarlierItems | null): PlacedItem[] {
  if (earlier === null) return [];
  const items = itemsSchema.parse(JSON.parse(earlier.history));
  return items.map((item) => ({ item, param: 'previous_response_id' }));
}

/** Puts what was stored in the place of its reference; without it references stay. */
export function resolveReferences(
  own: readonly PlacedItem[],
  earlier: EarlierItems | null,
): readonly PlacedItem[] {
  if (earlier === null) return own;
  return own.map(({ item, param }) =>
    item.type === 'item_reference'
      ? { item: storedItem(earlier, item.id), param }
      : { item, param },
  );
}

function storedItem({ items }: EarlierItems, id: string): Item {
  const json = items[id];
  assert(json !== undefined, 'a reference to what is not stored was refused');
  return itemSchema.parse(JSON.parse(json));
}
