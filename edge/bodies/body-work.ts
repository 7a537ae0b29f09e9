/**
 * Work on bodies that takes time by their length; large bodies go to threads, where the runtime has
 * them.
 */
import { strict as assert } from 'node:assert';
import type { Services } from '../services.ts';
import { smallBodyBytesMax } from './body-budget.ts';
import { received } from './body-messages.ts';
import type { Bytes, FromThread, ToThread } from './body-messages.ts';
import { prepare } from '../inference/prepare.ts';
import type { Prepared, PrepareInput } from '../inference/prepare.ts';
import { rewriteBody } from '../inference/rewrite-body.ts';
import type { Rewriting } from '../inference/rewrite-body.ts';

/** JSON, in the form in which it came out of its last work. */
export type BodyText = string | Bytes;

export type PreparedBody = Omit<Prepared, 'body'> & { readonly body: BodyText };

export interface BodyClient {
  readonly tenant: string;
  readonly signal: AbortSignal;
}

type WithThreads = Pick<Services, 'threads'>;

/**
 * Prepares a body, whose bytes may be gone afterwards.
 * @throws ApiError as `prepare` does; 413 if it takes too long or too much memory.
 */
export async function prepareBody(
  services: WithThreads,
  input: PrepareInput,
  client: BodyClient,
): Promise<PreparedBody> {
  const length = input.bytes.length + (input.context.earlier?.history.length ?? 0);
  if (services.threads === null || length <= smallBodyBytesMax) return prepare(input);
  const answer = await ask(services.threads, { kind: 'prepare', input }, client);
  assert(answer.kind === 'prepared', 'a thread answers what it is asked');
  return answer.prepared;
}

export async function rewrite(
  services: WithThreads,
  work: { readonly body: BodyText; readonly to: Rewriting },
  client: BodyClient,
): Promise<BodyText> {
  const { body, to } = work;
  if (typeof body === 'string' || services.threads === null) return rewriteBody(textOf(body), to);
  const answer = await ask(services.threads, { kind: 'rewrite', body, to }, client);
  assert(answer.kind === 'rewritten', 'a thread answers what it is asked');
  return answer.body;
}

async function ask(
  threads: NonNullable<Services['threads']>,
  message: ToThread,
  client: BodyClient,
): Promise<Exclude<FromThread, { kind: 'refused' | 'failed' }>> {
  // The thread's module answers each message with one of these.
  const answer = (await threads.run(message, client)) as FromThread;
  if (answer.kind === 'refused') throw received(answer.error);
  if (answer.kind === 'failed') throw new Error(answer.reason);
  return answer;
}

export function textOf(body: BodyText): string {
  return typeof body === 'string' ? body : new TextDecoder().decode(body);
}

/** The JSON object `body` with the fields of `more`, which it does not have yet. */
export function withFields(body: BodyText, more: object): BodyText {
  const fields = `,${JSON.stringify(more).slice(1)}`;
  if (typeof body === 'string') return body.slice(0, -1) + fields;
  const added = new TextEncoder().encode(fields);
  const whole = new Uint8Array(body.length - 1 + added.length);
  whole.set(body.subarray(0, -1));
  whole.set(added, body.length - 1);
  return whole;
}
