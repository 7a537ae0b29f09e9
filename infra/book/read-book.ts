/**
 * Asks about a fact in a book twice, and says what each answer took and cost: the second finds the
 * book cached. How far the model has read is what its worker counts, step by step.
 */
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { createProgress } from '../../gpu-worker/progress.ts';
import { bookPrompt, bookQuestion, bookTitle } from './book-prompt.ts';

export interface BookReader {
  readonly edgeUrl: string;
  /** The tenant's, for the edge. */
  readonly key: string;
  readonly model: string;
  readonly workerUrl: string;
  readonly workerToken: string;
}

export interface BookAnswer {
  readonly text: string;
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
    readonly cost_nano_usd: number;
  };
  readonly seconds: number;
}

/** Between two looks at the worker's counters. */
const pollMs = 250;
/** Lines that tell of the reading where there is no terminal to draw a bar on. */
const linesPerBook = 5;

/** @throws the signal's reason once it is aborted. */
export async function readBook(
  reader: BookReader,
  { tokens, signal }: { readonly tokens: number; readonly signal: AbortSignal },
): Promise<readonly [BookAnswer, BookAnswer]> {
  const book = await bookPrompt(tokens, (prompt) => countTokens(reader, prompt, signal));
  console.log(`The first ${book.tokens.toLocaleString('en')} tokens of ${bookTitle}, twice:\n`);
  const first = await askWithProgress(reader, book, signal);
  printAnswer(first);
  const second = await ask(reader, book.prompt, signal);
  printAnswer(second);
  const [price, time] = [
    second.usage.cost_nano_usd / first.usage.cost_nano_usd,
    second.seconds / first.seconds,
  ];
  console.log(
    `  The second answer took ${percent(time)} of the time, at ${percent(price)} of the price.\n`,
  );
  return [first, second];
}

const percent = (share: number): string => `${(share * 100).toFixed(1)}%`;

function printAnswer({ text, usage, seconds }: BookAnswer): void {
  const cached = usage.prompt_tokens_details.cached_tokens;
  console.log(`  Q  ${bookQuestion}`);
  console.log(`  A  ${text}`);
  console.log(
    `     ${usage.prompt_tokens} prompt tokens (${cached} cached), ` +
      `${usage.completion_tokens} output tokens, ` +
      `$${(usage.cost_nano_usd / 1e9).toFixed(9)}, ${seconds.toFixed(2)} s\n`,
  );
}

async function askWithProgress(
  reader: BookReader,
  book: { readonly prompt: string; readonly tokens: number },
  signal: AbortSignal,
): Promise<BookAnswer> {
  const before = await promptTokensRead(reader, signal);
  const show = progressOf(book.tokens);
  const watching = new AbortController();
  const watched = watch(
    async () => show.update((await promptTokensRead(reader, signal)) - before),
    watching.signal,
  );
  try {
    return await ask(reader, book.prompt, signal);
  } finally {
    watching.abort();
    await watched;
    show.stop();
  }
}

/** A bar on a terminal, a few lines elsewhere. */
function progressOf(total: number) {
  if (process.stderr.isTTY) {
    const bar = createProgress('  reading', 'tokens');
    return { update: (read: number) => bar.update(Math.min(read, total), total), stop: bar.stop };
  }
  let told = 0;
  return {
    update(read: number): void {
      const part = Math.floor((Math.min(read, total) / total) * linesPerBook);
      if (part <= told) return;
      told = part;
      console.log(`  read ${read.toLocaleString('en')} of ${total.toLocaleString('en')} tokens`);
    },
    stop(): void {},
  };
}

/** Looks again and again until it is told to stop; a look that fails tells nothing. */
async function watch(look: () => Promise<void>, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    // oxlint-disable-next-line no-await-in-loop
    await look().catch(() => {});
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** Streamed, because a client gives up on an answer that says nothing for minutes. */
export async function ask(
  reader: BookReader,
  prompt: string,
  signal: AbortSignal,
): Promise<BookAnswer> {
  const startedMs = performance.now();
  const response = await fetch(`${reader.edgeUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${reader.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: reader.model,
      messages: [{ role: 'user', content: prompt }],
      temperature: 0,
      max_tokens: 64,
      stream: true,
      stream_options: { include_usage: true },
    }),
    signal,
  });
  if (!response.ok || response.body === null) {
    throw new Error(`the edge answered ${response.status}: ${await response.text()}`);
  }
  let text = '';
  let usage: BookAnswer['usage'] | null = null;
  const events = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const { data } of events) {
    if (data === '[DONE]') break;
    // The edge's own events; /openapi.json describes them.
    const event = JSON.parse(data) as {
      readonly choices?: readonly { readonly delta: { readonly content?: string } }[];
      readonly usage?: BookAnswer['usage'] | null;
      readonly error?: { readonly message: string };
    };
    if (event.error) throw new Error(`the edge answered: ${event.error.message}`);
    text += event.choices?.[0]?.delta.content ?? '';
    usage = event.usage ?? usage;
  }
  if (usage === null) throw new Error('the answer ended without its usage');
  return { text, usage, seconds: (performance.now() - startedMs) / 1000 };
}

export async function countTokens(
  reader: BookReader,
  prompt: string,
  signal: AbortSignal,
): Promise<number> {
  const response = await fetch(`${reader.workerUrl}/tokenize`, {
    method: 'POST',
    headers: { authorization: `Bearer ${reader.workerToken}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: reader.model,
      messages: [{ role: 'user', content: prompt }],
    }),
    signal,
  });
  if (!response.ok) throw new Error(`the worker answered ${response.status}`);
  // The worker's own answer (docs/protocol.md).
  const { count } = (await response.json()) as { readonly count: number };
  return count;
}

/** Prompt tokens that the worker has read since it started. */
async function promptTokensRead(reader: BookReader, signal: AbortSignal): Promise<number> {
  const headers = { authorization: `Bearer ${reader.workerToken}` };
  const response = await fetch(`${reader.workerUrl}/metrics`, { headers, signal });
  const [, value] = /^sift_prompt_tokens_total (\d+)/m.exec(await response.text()) ?? [];
  if (value === undefined) throw new Error('the worker tells no prompt tokens');
  return Number(value);
}
