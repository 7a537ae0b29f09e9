/** Two real questions about a document of some 2,600 tokens, asked through the public URL. */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';

interface Answer {
  readonly choices: readonly { readonly message: { readonly content: string } }[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
    readonly cost_nano_usd: number;
  };
}

const demo = new URL('../gpu-worker/models/tiny/demo/', import.meta.url);

/** Whoever asks the demo's questions. */
export interface DemoCaller {
  readonly edgeUrl: string;
  readonly key: string;
  readonly model: string;
}

/** The time that a prompt took of which nothing was cached. */
export interface ReadingTime {
  readonly tokens: number;
  readonly seconds: number;
}

/**
 * Prints each answer with its usage and price, and the balance afterwards.
 * @returns how long the first one took.
 */
export async function askDemoQuestions(caller: DemoCaller): Promise<ReadingTime> {
  const document = readFileSync(new URL('document.txt', demo), 'utf8').trimEnd();
  // The file is ours: an array of questions about the document.
  const questions = JSON.parse(readFileSync(new URL('questions.json', demo), 'utf8')) as {
    readonly question: string;
  }[];
  const { edgeUrl, key, model } = caller;
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };

  console.log('Two questions about a document; the second finds most of its prompt cached:\n');
  let first: ReadingTime | null = null;
  for (const { question } of questions) {
    const messages = [{ role: 'user', content: `${document}\n\n${question}` }];
    const body = JSON.stringify({ model, messages, temperature: 0, max_tokens: 64 });
    const startedMs = performance.now();
    const response = await fetch(`${edgeUrl}/v1/chat/completions`, {
      method: 'POST',
      headers,
      body,
    });
    if (!response.ok)
      throw new Error(`the edge answered ${response.status}: ${await response.text()}`);
    // The edge's own answer; /openapi.json describes it.
    const answer = (await response.json()) as Answer;
    const elapsedMs = performance.now() - startedMs;
    printAnswer(question, answer, elapsedMs);
    first ??= { tokens: answer.usage.prompt_tokens, seconds: elapsedMs / 1000 };
  }
  const balance = await (await fetch(`${edgeUrl}/user/balance`, { headers })).json();
  const [usd] = (balance as { balance_infos: { total_balance: string }[] }).balance_infos;
  console.log(`  The demo tenant has $${usd?.total_balance} left.\n`);
  assert(first !== null, 'the demo has questions');
  return first;
}

function printAnswer(question: string, { usage, choices }: Answer, elapsedMs: number): void {
  const cached = usage.prompt_tokens_details.cached_tokens;
  console.log(`  Q  ${question}`);
  console.log(`  A  ${choices[0]?.message.content}`);
  console.log(
    `     ${usage.prompt_tokens} prompt tokens (${cached} cached), ` +
      `${usage.completion_tokens} output tokens, ` +
      `$${(usage.cost_nano_usd / 1e9).toFixed(9)}, ${(elapsedMs / 1000).toFixed(2)} s\n`,
  );
}

/** Says how to ask from a shell and from TypeScript. */
export function callingLines(caller: DemoCaller): string {
  const { edgeUrl, key, model } = caller;
  return `It goes on serving; Ctrl-C stops it. Ask it something:

  curl ${edgeUrl}/v1/chat/completions \\
    -H 'authorization: Bearer ${key}' -H 'content-type: application/json' \\
    -d '{"model": "${model}", "messages": [{"role": "user", "content": "Who are you?"}]}'

  import OpenAI from 'openai';
  const client = new OpenAI({ baseURL: '${edgeUrl}/v1', apiKey: '${key}' });
  const answer = await client.chat.completions.create({
    model: '${model}', messages: [{ role: 'user', content: 'Who are you?' }],
  });
  console.log(answer.choices[0].message.content, answer.usage);
`;
}
