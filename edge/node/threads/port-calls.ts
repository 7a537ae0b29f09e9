/**
 * Calls between two threads of an edge over a message port. What is sent in one turn of the event
 * loop goes as one message: to wake the other thread costs more than what it is told.
 */
import { strict as assert } from 'node:assert';
import type { MessagePort, Transferable } from 'node:worker_threads';
import { receivedError, sendableError } from './call-errors.ts';
import type { SentCallError } from './call-errors.ts';

/** A call of an object's method; its arguments and its answer are plain objects. */
export interface Call {
  readonly object: string;
  /** Tells the objects of one kind apart, such as the tenant's id. */
  readonly id?: string;
  readonly method: string;
  readonly args: readonly unknown[];
}

/** A value, and the streams in it, which are handed over: they cannot be copied. */
export interface Handed {
  readonly value: unknown;
  readonly transfer: readonly ReadableStream[];
}

export interface PortCalls {
  /** Rejects with what the other thread's object throws. */
  call(call: Call, transfer?: readonly ReadableStream[]): Promise<unknown>;
  /** Calls without an answer, nor anybody who would learn of a failure. */
  tell(call: Call): void;
  close(): void;
}

type Message =
  | { readonly kind: 'told'; readonly call: Call }
  | { readonly kind: 'call'; readonly number: number; readonly call: Call }
  | { readonly kind: 'answer'; readonly number: number; readonly value: unknown }
  | { readonly kind: 'failure'; readonly number: number; readonly error: SentCallError };

interface Outgoing {
  readonly message: Message;
  readonly transfer: readonly ReadableStream[];
  /** The message holds something that cannot be sent. */
  readonly fail: (error: unknown) => void;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** @param answer makes the answers to the other thread's calls. */
export function connectPort(port: MessagePort, answer: (call: Call) => Promise<Handed>): PortCalls {
  return new ConnectedPort(port, answer);
}

class ConnectedPort implements PortCalls {
  readonly #port: MessagePort;
  readonly #answer: (call: Call) => Promise<Handed>;
  /** Each is bounded by what asks: the requests under way. */
  readonly #waiting = new Map<number, Waiting>();
  #outgoing: Outgoing[] = [];
  #calls = 0;

  constructor(port: MessagePort, answer: (call: Call) => Promise<Handed>) {
    this.#port = port;
    this.#answer = answer;
    port.on('message', (messages: readonly Message[]) => {
      for (const message of messages) this.#receive(message);
    });
  }

  call(call: Call, transfer: readonly ReadableStream[] = []): Promise<unknown> {
    const number = ++this.#calls;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      const fail = (error: unknown): void => this.#take(number).reject(error);
      this.#send({ message: { kind: 'call', number, call }, transfer, fail });
    });
  }

  tell(call: Call): void {
    this.#send({ message: { kind: 'told', call }, transfer: [], fail: () => {} });
  }

  close(): void {
    this.#flush();
    this.#port.close();
  }

  #receive(message: Message): void {
    switch (message.kind) {
      case 'told':
        void this.#answer(message.call).catch(() => {});
        return;
      case 'call':
        void this.#answerCall(message.number, message.call);
        return;
      case 'answer':
        this.#take(message.number).resolve(message.value);
        return;
      case 'failure':
        this.#take(message.number).reject(receivedError(message.error));
    }
  }

  async #answerCall(number: number, call: Call): Promise<void> {
    const fail = (error: unknown): void => {
      const message = { kind: 'failure', number, error: sendableError(error) } as const;
      this.#send({ message, transfer: [], fail: () => assert.fail('an error can be sent') });
    };
    try {
      const { value, transfer } = await this.#answer(call);
      this.#send({ message: { kind: 'answer', number, value }, transfer, fail });
    } catch (error) {
      fail(error);
    }
  }

  #take(number: number): Waiting {
    const waiting = this.#waiting.get(number);
    assert(waiting !== undefined, 'a call is answered once');
    this.#waiting.delete(number);
    return waiting;
  }

  #send(outgoing: Outgoing): void {
    if (this.#outgoing.push(outgoing) === 1) setImmediate(() => this.#flush());
  }

  #flush(): void {
    const outgoing = this.#outgoing;
    this.#outgoing = [];
    if (outgoing.length === 0) return;
    try {
      this.#post(outgoing);
    } catch {
      // One that cannot be sent does not keep the others.
      for (const each of outgoing) this.#postAlone(each);
    }
  }

  #postAlone(outgoing: Outgoing): void {
    try {
      this.#post([outgoing]);
    } catch (error) {
      outgoing.fail(error);
    }
  }

  #post(outgoing: readonly Outgoing[]): void {
    const messages = outgoing.map(({ message }) => message);
    // Node's types have a second declaration of the one class of streams.
    const transfer = outgoing.flatMap((each) => each.transfer) as unknown as Transferable[];
    this.#port.postMessage(messages, transfer);
  }
}

type Method = (...args: never[]) => Promise<unknown>;

/** An object of another thread: each method of the list is a call. */
export function remoteObject<Name extends string, Target extends Record<Name, Method>>(
  methods: readonly Name[],
  call: (method: Name, args: readonly unknown[]) => Promise<unknown>,
): Pick<Target, Name> {
  const stub: Partial<Record<Name, Method>> = {};
  for (const method of methods) stub[method] = (...args) => call(method, args);
  // It has each method of the list, and the other thread's object has the same contract.
  return stub as Pick<Target, Name>;
}

/** Calls a method of an object, as a `remoteObject` of the same list asks for it. */
export async function callMethod<Name extends string>(
  target: Record<Name, Method>,
  methods: readonly Name[],
  { method, args }: Pick<Call, 'method' | 'args'>,
): Promise<Handed> {
  const name = methods.find((each) => each === method);
  assert(name !== undefined, `${method} is a method of the contract`);
  // The stub's caller gave them by the same contract.
  return { value: await target[name](...(args as never[])), transfer: [] };
}
