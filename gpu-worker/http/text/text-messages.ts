/** The messages between the text threads and their pool. */
import type { ErrorBody } from '../../protocol/errors.ts';
import type { ErrorCode } from '../api-error.ts';
import type { SamplingDefaults } from '../request/sampling-defaults.ts';
import type { ReadByRoute, TextRequest } from './text-model.ts';

export type ToText =
  | { readonly kind: 'read'; readonly job: number; readonly request: TextRequest }
  /** Nobody waits for the job any more. */
  | { readonly kind: 'stop'; readonly job: number };

/** Facts that the threads found out about the text of the model. */
export interface TextDescription {
  readonly tokenizerId: string;
  readonly samplingDefaults: SamplingDefaults;
}

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly param: string | null;
  readonly overflow: ErrorBody['error']['overflow'];
}

export type TextOutcome =
  | { readonly kind: 'read'; readonly result: ReadByRoute[keyof ReadByRoute] }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** The job ran for as long as one may. */
  | { readonly kind: 'too-slow' }
  | { readonly kind: 'stopped' }
  /** A fault of ours. */
  | { readonly kind: 'failed'; readonly message: string };

export type FromText =
  | { readonly kind: 'ready'; readonly description: TextDescription }
  | { readonly kind: 'broken'; readonly message: string }
  | { readonly kind: 'started'; readonly job: number }
  | { readonly kind: 'done'; readonly job: number; readonly outcome: TextOutcome };
