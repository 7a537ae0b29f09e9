/** Ends an answer where its hold ends: no event that the hold does not cover is passed on. */
import type { Choice, Chunk, StopCode } from '../engines/chunk.ts';
import { costNanoUsd } from '../money.ts';
import type { Price, Usage } from '../money.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';
import type { GrowingHold } from './growing-hold.ts';

interface Answers {
  readonly kind: 'chat' | 'text';
  readonly count: number;
  readonly price: Price;
}

/** Passes on what the hold covers; its own last event ends all answers that go on. */
export async function* endWithHold(
  batches: AsyncGenerator<readonly WorkerEvent[], void>,
  hold: GrowingHold,
  answers: Answers,
): AsyncGenerator<readonly WorkerEvent[], void> {
  const open = new OpenAnswers(answers);
  let counted: Usage | null = null;
  for await (const batch of batches) {
    let passed: WorkerEvent[] = [];
    for (const event of batch) {
      const covered = event.usage === null || hold.covers(event.usage);
      if (covered !== true) {
        if (passed.length > 0) yield passed;
        passed = [];
        if (!(await covered)) {
          const part = coveredPart(event, { counted, hold, price: answers.price });
          if (part !== null) open.see(part.chunk);
          const usage = part?.usage ?? counted;
          yield [...(part === null ? [] : [part]), open.end(usage, hold.stoppedBy)];
          return;
        }
      }
      counted = event.usage ?? counted;
      open.see(event.chunk);
      passed.push(event);
    }
    if (passed.length > 0) yield passed;
  }
}

/** Knows which answers have begun and ended. */
class OpenAnswers {
  readonly #answers: Answers;
  readonly #begun = new Set<number>();
  readonly #ended = new Set<number>();
  #head: Omit<Chunk, 'choices' | 'prompt_logprobs'> = {};

  constructor(answers: Answers) {
    this.#answers = answers;
  }

  see({ choices, prompt_logprobs: _logprobs, ...head }: Chunk): void {
    this.#head = head;
    for (const { index, finish_reason: reason } of choices) {
      this.#begun.add(index);
      if (reason !== null) this.#ended.add(index);
    }
  }

  end(usage: Usage | null, code: StopCode | null): WorkerEvent {
    // The end of a stream states it in the usage, too, and only to clients that asked for that.
    const finish = { finish_reason: 'length', ...(code && { stopped_by: code }) } as const;
    const indices = Array.from({ length: this.#answers.count }, (_, index) => index);
    const choices = indices
      .filter((index) => !this.#ended.has(index))
      .map((index): Choice => {
        const begins = !this.#begun.has(index);
        const delta = begins ? { role: 'assistant' as const, content: '' } : {};
        const text = this.#answers.kind === 'chat' ? { delta } : { text: '' };
        return { index, ...text, logprobs: null, ...finish };
      });
    return { chunk: { ...this.#head, choices }, usage, texts: null };
  }
}

/**
 * A run of texts counts as its last one. Where each of them is one token, those that the hold
 * covers are passed on.
 */
function coveredPart(
  { chunk, usage, texts }: WorkerEvent,
  at: { readonly counted: Usage | null; readonly hold: GrowingHold; readonly price: Price },
): WorkerEvent | null {
  const { counted, hold, price } = at;
  if (texts === null || usage === null || counted === null) return null;
  const text = usage.outputText - counted.outputText;
  const reasoning = usage.outputReasoning - counted.outputReasoning;
  const isOneKind = text === 0 || reasoning === 0;
  if (!isOneKind || text + reasoning !== texts.length) return null;
  for (let count = texts.length - 1; count > 0; count--) {
    const dropped = texts.length - count;
    const part = {
      ...usage,
      outputText: usage.outputText - (text > 0 ? dropped : 0),
      outputReasoning: usage.outputReasoning - (reasoning > 0 ? dropped : 0),
    };
    if (hold.has(costNanoUsd(part, price))) {
      return { chunk, usage: part, texts: texts.slice(0, count) };
    }
  }
  return null;
}
