/** The outcomes of making a key, or changing one, as an operator or as another key. */
import type { Refusal } from './admission-contract.ts';
import type { KeyRecord } from './key-contract.ts';

export type KeyRefusal =
  /** The acting key may not manage keys, or not any more. */
  | { readonly kind: 'no-right'; readonly refusal: Refusal }
  /** The acting key has not itself what it would give. */
  | { readonly kind: 'beyond'; readonly param: string; readonly reason: string }
  /** After this no key of the tenant could manage it. */
  | { readonly kind: 'last-admin' }
  | { readonly kind: 'too-many'; readonly keysMax: number }
  /** There is a key of that id with other terms. */
  | { readonly kind: 'other-terms' };

export type KeyDone =
  | { readonly kind: 'done'; readonly key: KeyRecord }
  | { readonly kind: 'refused'; readonly why: KeyRefusal };
