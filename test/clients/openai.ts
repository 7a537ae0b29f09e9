/**
 * OpenAI's client. Run it against a system of your own:
 *
 *     SIFT_URL=http://127.0.0.1:8787 SIFT_KEY=sk-sift-... node test/clients/openai.ts
 */
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const { SIFT_URL: url, SIFT_KEY: apiKey, SIFT_MODEL: model = 'sift-tiny' } = process.env;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });

const documentFile = new URL('../../gpu-worker/models/tiny/demo/document.txt', import.meta.url);
const document = readFileSync(documentFile, 'utf8').slice(0, 1_800);
const question = 'What is the access code of Rivoka?';
const asking = (text: string) => ({
  model,
  temperature: 0,
  max_completion_tokens: 400,
  messages: [{ role: 'user' as const, content: text }],
});
const Fact = z.object({ isKnown: z.boolean(), isNumber: z.boolean() });
const Reading = z.object({ page: z.int().min(1).max(9), title: z.enum(['Letters', 'Manual']) });
const readPage = zodFunction({
  name: 'read_page',
  parameters: Reading,
  description: 'The text of a page.',
});

async function chat() {
  const { data: answer, response } = await client.chat.completions
    .create(asking(`${document}\n\n${question}`))
    .withResponse();
  const [choice] = answer.choices;
  const { content: text } = choice?.message ?? {};
  const cost = response.headers.get('x-sift-cost-nano-usd');
  return { text, finish: choice?.finish_reason, cost, usages: [answer.usage] };
}

async function stream() {
  const events = client.chat.completions.stream({
    ...asking(`${document}\n\n${question}`),
    stream_options: { include_usage: true },
  });
  const pieces: string[] = [];
  events.on('content', (piece) => pieces.push(piece));
  const answer = await events.finalChatCompletion();
  return { text: answer.choices[0]?.message.content, pieces, usages: [answer.usage] };
}

async function tools() {
  const { messages, ...rest } = asking(question);
  const options = { ...rest, tools: [readPage], parallel_tool_calls: false };
  const first = await client.chat.completions.parse({
    ...options,
    messages,
    tool_choice: 'required',
  });
  const [choice] = first.choices;
  const [call] = choice?.message.tool_calls ?? [];
  if (!choice || call?.type !== 'function') throw new Error('the model called no function');
  const second = await client.chat.completions.create({
    ...options,
    messages: [
      ...messages,
      choice.message,
      { role: 'tool', tool_call_id: call.id, content: document },
    ],
  });
  return {
    name: call.function.name,
    input: call.function.parsed_arguments,
    finish: choice.finish_reason,
    text: second.choices[0]?.message.content,
    usages: [first.usage, second.usage],
  };
}

async function streamedTools() {
  const events = client.chat.completions.stream({
    ...asking(question),
    tools: [readPage],
    tool_choice: { type: 'function', function: { name: 'read_page' } },
    stream_options: { include_usage: true },
  });
  const pieces: string[] = [];
  events.on('tool_calls.function.arguments.delta', (delta) => pieces.push(delta.arguments_delta));
  const { choices, usage } = await events.finalChatCompletion();
  const [call] = choices[0]?.message.tool_calls ?? [];
  if (call?.type !== 'function') throw new Error('the model called no function');
  return {
    name: call.function.name,
    input: call.function.parsed_arguments,
    finish: choices[0]?.finish_reason,
    pieces,
    usages: [usage],
  };
}

async function structured() {
  const answer = await client.chat.completions.parse({
    ...asking(`${document}\n\n${question}`),
    response_format: zodResponseFormat(Fact, 'fact'),
  });
  return { object: answer.choices[0]?.message.parsed, usages: [answer.usage] };
}

async function reasoning() {
  const answer = await client.chat.completions.create({
    ...asking(`${document}\n\n${question}`),
    reasoning_effort: 'high',
  });
  // DeepSeek's field, which OpenAI's types lack.
  const message = answer.choices[0]?.message as { content: string; reasoning_content?: string };
  return { reasoning: message.reasoning_content, text: message.content, usages: [answer.usage] };
}

/** The second of two equal questions finds its prompt cached. */
async function cached() {
  const ask = () =>
    client.chat.completions.create(asking(`Once more.\n\n${document}\n\n${question}`));
  const [first, second] = [await ask(), await ask()];
  return {
    tokens: [first, second].map(({ usage }) => usage?.prompt_tokens_details?.cached_tokens),
    usages: [first.usage, second.usage],
  };
}

async function limits() {
  const cut = await client.chat.completions.create({
    ...asking('Who are you?'),
    max_completion_tokens: 3,
  });
  const stopped = await client.chat.completions.create({
    ...asking('Who are you?'),
    stop: ['sparse', 'never said'],
  });
  const sampled = { ...asking('Who are you?'), temperature: 2, seed: 2 ** 53 - 1, n: 3 };
  const several = await client.chat.completions.create(sampled);
  const again = await client.chat.completions.create(sampled);
  const likely = await client.chat.completions.create({
    ...asking('Who are you?'),
    logprobs: true,
    top_logprobs: 2,
  });
  const texts = (answer: OpenAI.ChatCompletion) =>
    answer.choices.map(({ message }) => message.content);
  return {
    cut: [cut.choices[0]?.finish_reason, cut.usage?.completion_tokens],
    stopped: [stopped.choices[0]?.finish_reason, texts(stopped)[0]],
    choices: several.choices.map(({ index }) => index),
    repeats: texts(several).join('\n') === texts(again).join('\n'),
    logprobs: likely.choices[0]?.logprobs?.content?.map((each) => each.top_logprobs.length),
    usages: [cut, stopped, several, again, likely].map(({ usage }) => usage),
  };
}

async function errors() {
  const refused = async (asked: Promise<unknown>) => {
    const error = await asked.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof OpenAI.APIError)) throw error;
    return [error.constructor.name, error.status, error.code];
  };
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'sk-sift-stranger' });
  const hello = asking('Hello');
  return {
    key: await refused(stranger.chat.completions.create(hello)),
    model: await refused(client.chat.completions.create({ ...hello, model: 'gpt-nobody' })),
    overflow: await refused(
      client.chat.completions.create({ ...hello, max_completion_tokens: 1_000_000 }),
    ),
    value: await refused(client.chat.completions.create({ ...hello, temperature: 3 })),
  };
}

/** Whoever leaves pays for what was computed until then. */
async function abort() {
  const events = await client.chat.completions.create({
    ...asking('Tell me a long story.'),
    max_completion_tokens: 4_000,
    logit_bias: { 1: -100 },
    stream: true,
  });
  let pieces = 0;
  for await (const event of events) {
    if (event.choices[0]?.delta.content) pieces++;
    if (pieces === 5) break;
  }
  return { pieces };
}

const scenarios = [chat, stream, tools, streamedTools, structured, reasoning, cached, limits];
for (const scenario of [...scenarios, errors, abort]) {
  console.log(JSON.stringify({ [scenario.name]: await scenario() }));
}
