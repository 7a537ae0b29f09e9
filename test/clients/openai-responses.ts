/**
 * OpenAI's client with the Responses API, as its README begins:
 *
 *     SIFT_URL=http://127.0.0.1:8787 SIFT_KEY=sk-sift-... node test/clients/openai-responses.ts
 */
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const { SIFT_URL: url, SIFT_KEY: apiKey, SIFT_MODEL: model = 'sift-tiny' } = process.env;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });

const documentFile = new URL('../../gpu-worker/models/tiny/demo/document.txt', import.meta.url);
const document = readFileSync(documentFile, 'utf8').slice(0, 1_800);
const question = 'What is the access code of Rivoka?';
const asking = (input: string) => ({ model, temperature: 0, max_output_tokens: 400, input });
const Fact = z.object({ isKnown: z.boolean(), isNumber: z.boolean() });
const Reading = z.object({ page: z.int().min(1).max(9), title: z.enum(['Letters', 'Manual']) });
const readPage = zodResponsesFunction({
  name: 'read_page',
  parameters: Reading,
  description: 'The text of a page.',
});

async function chat() {
  const { data: answer, response } = await client.responses
    .create(asking(`${document}\n\n${question}`))
    .withResponse();
  const cost = response.headers.get('x-sift-cost-nano-usd');
  return { text: answer.output_text, finish: answer.status, cost, usages: [answer.usage] };
}

async function stream() {
  const events = client.responses.stream(asking(`${document}\n\n${question}`));
  const pieces: string[] = [];
  events.on('response.output_text.delta', ({ delta }) => pieces.push(delta));
  const answer = await events.finalResponse();
  return { text: answer.output_text, pieces, usages: [answer.usage] };
}

/** Calls until the model has an answer; the conversation is sent anew each time. */
async function tools() {
  const options = { ...asking(question), tools: [readPage], parallel_tool_calls: false };
  const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: question }];
  const first = await client.responses.parse({ ...options, input, tool_choice: 'required' });
  const call = first.output.find((item) => item.type === 'function_call');
  if (!call) throw new Error('the model called no function');
  const output = { type: 'function_call_output' as const, call_id: call.call_id, output: document };
  const second = await client.responses.create({
    ...options,
    // The types of items differ in kinds that no answer here has.
    input: [...input, ...(first.output as OpenAI.Responses.ResponseInput), output],
  });
  return {
    name: call.name,
    input: call.parsed_arguments,
    finish: first.status,
    text: second.output_text,
    usages: [first.usage, second.usage],
  };
}

async function streamedTools() {
  const events = client.responses.stream({
    ...asking(question),
    tools: [readPage],
    tool_choice: { type: 'function', name: 'read_page' },
  });
  const pieces: string[] = [];
  events.on('response.function_call_arguments.delta', ({ delta }) => pieces.push(delta));
  const { output, status, usage } = await events.finalResponse();
  const [call] = output;
  if (call?.type !== 'function_call') throw new Error('the model called no function');
  return {
    name: call.name,
    input: call.parsed_arguments,
    finish: status,
    pieces,
    usages: [usage],
  };
}

async function structured() {
  const answer = await client.responses.parse({
    ...asking(`${document}\n\n${question}`),
    text: { format: zodTextFormat(Fact, 'fact') },
  });
  return { object: answer.output_parsed, usages: [answer.usage] };
}

async function reasoning() {
  const answer = await client.responses.create({
    ...asking(`${document}\n\n${question}`),
    reasoning: { effort: 'high', summary: 'auto' },
  });
  const [thought] = answer.output;
  const summary = thought?.type === 'reasoning' ? thought.summary[0]?.text : null;
  return { reasoning: summary, text: answer.output_text, usages: [answer.usage] };
}

/** The second question goes on from the first answer, which is stored; so does the cache. */
async function stored() {
  const first = await client.responses.create({
    ...asking(`Twice more.\n\n${document}`),
    store: true,
  });
  const second = await client.responses.create({
    ...asking(question),
    previous_response_id: first.id,
  });
  const read = await client.responses.retrieve(first.id);
  const { data: items } = await client.responses.inputItems.list(first.id);
  await client.responses.delete(first.id);
  const gone = await client.responses.retrieve(first.id).catch((reason: unknown) => reason);
  const counted = await client.responses.inputTokens.count({ model, input: question });
  return {
    isSame: read.output_text === first.output_text,
    roles: items.flatMap((item) => (item.type === 'message' ? [item.role] : [])),
    cached: second.usage?.input_tokens_details.cached_tokens,
    gone: gone instanceof OpenAI.NotFoundError,
    counted: counted.input_tokens,
    usages: [first.usage, second.usage],
  };
}

/** The second of two equal questions finds its prompt cached. */
async function cached() {
  const ask = () => client.responses.create(asking(`Once more.\n\n${document}\n\n${question}`));
  const [first, second] = [await ask(), await ask()];
  return {
    tokens: [first, second].map(({ usage }) => usage?.input_tokens_details.cached_tokens),
    usages: [first.usage, second.usage],
  };
}

async function limits() {
  const cut = await client.responses.create({ ...asking('Who are you?'), max_output_tokens: 3 });
  const likely = await client.responses.create({
    ...asking('Who are you?'),
    include: ['message.output_text.logprobs'],
    top_logprobs: 2,
  });
  const [message] = likely.output;
  const [part] = message?.type === 'message' ? message.content : [];
  return {
    cut: [cut.status, cut.usage?.output_tokens],
    logprobs:
      part?.type === 'output_text' ? part.logprobs?.map((each) => each.top_logprobs.length) : null,
    usages: [cut.usage, likely.usage],
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
    key: await refused(stranger.responses.create(hello)),
    model: await refused(client.responses.create({ ...hello, model: 'gpt-nobody' })),
    overflow: await refused(client.responses.create({ ...hello, max_output_tokens: 1_000_000 })),
  };
}

/** Whoever leaves pays for what was computed until then. */
async function abort() {
  const events = await client.responses.create({
    ...asking('Tell me a long story.'),
    max_output_tokens: 4_000,
    stream: true,
  });
  let pieces = 0;
  for await (const event of events) {
    if (event.type === 'response.output_text.delta') pieces++;
    if (pieces === 3) break;
  }
  return { pieces };
}

const scenarios = [chat, stream, tools, streamedTools, structured, reasoning, stored, cached];
for (const scenario of [...scenarios, limits, errors, abort]) {
  console.log(JSON.stringify({ [scenario.name]: await scenario() }));
}
