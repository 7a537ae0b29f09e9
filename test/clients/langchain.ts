/**
 * LangChain's chat models of OpenAI's and of Anthropic's protocol:
 *
 *     SIFT_URL=http://127.0.0.1:8787 SIFT_KEY=sk-sift-... node test/clients/langchain.ts anthropic
 */
import { readFileSync } from 'node:fs';
import { ChatAnthropic } from '@langchain/anthropic';
import { HumanMessage } from '@langchain/core/messages';
import type {
  AIMessage,
  AIMessageChunk,
  UsageMetadata,
  ToolMessage,
} from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { z } from 'zod';

// Nothing is traced anywhere, whatever the environment says.
process.env['LANGSMITH_TRACING'] = 'false';
process.env['LANGCHAIN_TRACING_V2'] = 'false';
const { SIFT_URL: url, SIFT_KEY = '', SIFT_MODEL: modelName = 'sift-tiny' } = process.env;
const [protocol = 'openai'] = process.argv.slice(2);

interface Change {
  readonly apiKey?: string;
  readonly model?: string;
  readonly maxTokens?: number;
  readonly stop?: string[];
}

function openModel({ apiKey = SIFT_KEY, model = modelName, maxTokens = 400, stop }: Change = {}) {
  const shared = { apiKey, model, maxTokens, temperature: 0, maxRetries: 0 };
  return protocol === 'anthropic'
    ? new ChatAnthropic({
        ...shared,
        anthropicApiUrl: `${url}/anthropic`,
        ...(stop && { stopSequences: stop }),
      })
    : new ChatOpenAI({
        ...shared,
        configuration: { baseURL: `${url}/v1` },
        ...(protocol === 'openai-responses' && { useResponsesApi: true }),
        ...(stop && { stop }),
      });
}

const model = openModel();
const documentFile = new URL('../../gpu-worker/models/tiny/demo/document.txt', import.meta.url);
const document = readFileSync(documentFile, 'utf8').slice(0, 1_800);
const question = 'What is the access code of Rivoka?';
const Fact = z.object({ isKnown: z.boolean(), isNumber: z.boolean() });
const readPage = tool(() => document, {
  name: 'read_page',
  description: 'The text of a page.',
  schema: z.object({ page: z.int().min(1).max(9), title: z.enum(['Letters', 'Manual']) }),
});
function finishOf(answer: AIMessage | AIMessageChunk): unknown {
  const { response_metadata: metadata, additional_kwargs: streamed } = answer;
  return (
    metadata['finish_reason'] ??
    metadata['stop_reason'] ??
    streamed['stop_reason'] ??
    metadata['status']
  );
}

/** The two classes' types of an answer have no type of usage in common. */
const countsOf = (answer: AIMessage | AIMessageChunk): UsageMetadata | undefined =>
  answer.usage_metadata;

async function chat() {
  const answer = await model.invoke(`${document}\n\n${question}`);
  return { text: answer.text, finish: finishOf(answer), usages: [answer.usage_metadata] };
}

async function stream() {
  const pieces: string[] = [];
  let answer: AIMessageChunk | undefined;
  for await (const chunk of await model.stream(`${document}\n\n${question}`)) {
    if (chunk.text !== '') pieces.push(chunk.text);
    answer = answer ? answer.concat(chunk) : chunk;
  }
  return { text: answer?.text, pieces, usages: [answer?.usage_metadata] };
}

async function tools() {
  const asked = new HumanMessage(question);
  // LangChain sends a choice of any tool to chat completions and to Anthropic's protocol alone.
  const choice = protocol === 'openai-responses' ? 'read_page' : 'any';
  const caller = model.bindTools([readPage], { tool_choice: choice });
  const first = await caller.invoke([asked]);
  const [call] = first.tool_calls ?? [];
  if (!call) throw new Error('the model called no tool');
  const result: ToolMessage = await readPage.invoke({ ...call, type: 'tool_call' });
  const second = await model.bindTools([readPage]).invoke([asked, first, result]);
  return {
    name: call.name,
    input: call.args,
    finish: finishOf(first),
    text: second.text,
    usages: [first.usage_metadata, second.usage_metadata],
  };
}

async function streamedTools() {
  const caller = model.bindTools([readPage], { tool_choice: 'read_page' });
  const pieces: string[] = [];
  let answer: AIMessageChunk | undefined;
  for await (const chunk of await caller.stream(question)) {
    pieces.push(...(chunk.tool_call_chunks ?? []).flatMap(({ args }) => (args ? [args] : [])));
    answer = answer ? answer.concat(chunk) : chunk;
  }
  const [call] = answer?.tool_calls ?? [];
  return {
    name: call?.name,
    input: call?.args,
    finish: answer && finishOf(answer),
    pieces,
    usages: [answer?.usage_metadata],
  };
}

async function structured() {
  const asked = `${document}\n\n${question}`;
  const options = { name: 'fact', includeRaw: true } as const;
  const bySchema = await model
    .withStructuredOutput(Fact, { ...options, method: 'jsonSchema' })
    .invoke(asked);
  const byCall = await model
    .withStructuredOutput(Fact, { ...options, method: 'functionCalling' })
    .invoke(asked);
  return {
    object: bySchema.parsed,
    called: byCall.parsed,
    usages: [bySchema, byCall].map(({ raw }) => (raw as AIMessage).usage_metadata),
  };
}

async function reasoning() {
  const thinker = openThinker();
  const answer = await thinker.invoke(`${document}\n\n${question}`);
  const thought = answer.contentBlocks.find((block) => block.type === 'reasoning');
  return { reasoning: thought?.reasoning, text: answer.text, usages: [answer.usage_metadata] };
}

/** The second of two equal questions finds its prompt cached. */
async function cached() {
  const ask = () => model.invoke(`Once more.\n\n${document}\n\n${question}`);
  const usages = [countsOf(await ask()), countsOf(await ask())];
  return { tokens: usages.map((usage) => usage?.input_token_details?.cache_read), usages };
}

async function limits() {
  const cut = await openModel({ maxTokens: 3 }).invoke('Who are you?');
  // The Responses API has no stop strings.
  if (protocol === 'openai-responses') {
    return { cut: [finishOf(cut), countsOf(cut)?.output_tokens], usages: [cut.usage_metadata] };
  }
  const stopped = await openModel({ stop: ['sparse'] }).invoke('Who are you?');
  return {
    cut: [finishOf(cut), countsOf(cut)?.output_tokens],
    stopped: [finishOf(stopped), stopped.text],
    usages: [cut.usage_metadata, stopped.usage_metadata],
  };
}

async function errors() {
  const refused = async (change: Change, asked = 'Hello') => {
    const error = await openModel(change)
      .invoke(asked)
      .catch((reason: unknown) => reason);
    if (!(error instanceof Error)) throw error;
    const { status, lc_error_code: code } = error as { status?: number; lc_error_code?: string };
    return [error.name, status, code];
  };
  return {
    key: await refused({ apiKey: 'sk-sift-stranger' }),
    model: await refused({ model: 'gpt-nobody' }),
    overflow: await refused({}, document.repeat(400)),
  };
}

/** Whoever leaves pays for what was computed until then. */
async function abort() {
  let pieces = 0;
  for await (const chunk of await model.stream('Tell me a long story.')) {
    if (chunk.text !== '') pieces++;
    if (pieces === 3) break;
  }
  return { pieces };
}

function openThinker() {
  return protocol === 'anthropic'
    ? new ChatAnthropic({
        apiKey: SIFT_KEY,
        model: modelName,
        maxTokens: 1_400,
        maxRetries: 0,
        anthropicApiUrl: `${url}/anthropic`,
        thinking: { type: 'enabled', budget_tokens: 1_024 },
      })
    : new ChatOpenAI({
        apiKey: SIFT_KEY,
        model: modelName,
        maxTokens: 400,
        temperature: 0,
        maxRetries: 0,
        configuration: { baseURL: `${url}/v1` },
        ...(protocol === 'openai-responses'
          ? {
              useResponsesApi: true,
              modelKwargs: { reasoning: { effort: 'high', summary: 'auto' } },
            }
          : { modelKwargs: { reasoning_effort: 'high' } }),
      });
}

const scenarios = [chat, stream, tools, streamedTools, structured, reasoning, cached, limits];
for (const scenario of [...scenarios, errors, abort]) {
  console.log(JSON.stringify({ [scenario.name]: await scenario() }));
}
