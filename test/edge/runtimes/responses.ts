/**
 * The Responses API as the clients that people have ask it, each in its default: whole and
 * streamed, with tools, structured output and what a tenant stores. One suite for every runtime.
 */
import { createOpenAI } from '@ai-sdk/openai';
import { ChatOpenAI } from '@langchain/openai';
import { tool as langchainTool } from '@langchain/core/tools';
import { Agent, OpenAIProvider, Runner, tool as agentTool } from '@openai/agents';
import { generateText, isStepCount, Output, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import type { RunningEdge } from './end-to-end.ts';
import { balanceOf } from './end-to-end-runtimes.ts';

const answerText = 'Hello wörld 🌍!';
const City = z.object({ city: z.string() });
const calling = {
  ...plainScript,
  words: [],
  toolCall: { name: 'weather', arguments: '{"city":"Berlin"}' },
  finishReason: 'tool_calls',
};
const described = { name: 'weather', description: 'of a city' };

export function describeResponses(edgeOf: () => RunningEdge): void {
  describe('the Responses API', () => {
    beforeEach(() => {
      edgeOf().stub.script = plainScript;
    });
    test.each(Object.entries(scenarios))('%s', async (_, scenario) => {
      expect.hasAssertions();
      await scenario(edgeOf());
    });
  });
}

const scenarios: Readonly<Record<string, (edge: RunningEdge) => Promise<void>>> = {
  'gives the openai package a whole answer and a stream, each paid once': text,
  'holds an answer to a schema for the openai package, which parses it': schema,
  'stores a response, goes on from it, and forgets it': stored,
  "answers the AI SDK's default provider: text, tools and an object": vercel,
  "answers OpenAI's agents in their default, with tools": agents,
  "answers LangChain's useResponsesApi, with tools and structured output": langchain,
};

const connectionOf = ({ baseUrl, apiKey }: RunningEdge) => ({ baseURL: `${baseUrl}/v1`, apiKey });
const clientOf = (edge: RunningEdge) => new OpenAI({ ...connectionOf(edge), maxRetries: 0 });
const askedOf = ({ model }: RunningEdge) => ({ model, input: 'Say hello.' });

/** The model calls the tool first, and answers once it has run. */
function toolOf(edge: RunningEdge) {
  return ({ city }: { readonly city: string }): string => {
    edge.stub.script = plainScript;
    return `Sunny in ${city}.`;
  };
}

function hasToolResult({ stub }: RunningEdge): boolean {
  return JSON.stringify(stub.requests.at(-1)?.body['messages']).includes('Sunny in Berlin.');
}

async function text(edge: RunningEdge): Promise<void> {
  edge.stub.script = { ...plainScript, promptTokens: 100, cachedTokens: 64 };
  const before = await balanceOf(edge);
  const whole = await clientOf(edge).responses.create(askedOf(edge));
  expect(whole).toMatchObject({ status: 'completed', output_text: answerText });
  const events = await Array.fromAsync(
    await clientOf(edge).responses.create({ ...askedOf(edge), stream: true }),
  );
  expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, at) => at));
  const last = events.at(-1);
  expect(last?.type).toBe('response.completed');
  const streamed = last?.type === 'response.completed' ? last.response : null;
  expect(streamed?.usage).toEqual(whole.usage);
  expect(whole.usage).toMatchObject({
    input_tokens: 100,
    input_tokens_details: { cached_tokens: 64 },
    output_tokens: 5,
  });
  const { cost_nano_usd: cost } = z.object({ cost_nano_usd: z.int() }).parse(whole.usage);
  expect(before - (await balanceOf(edge))).toBe(2 * cost);
}

async function schema(edge: RunningEdge): Promise<void> {
  edge.stub.script = { ...plainScript, words: ['{"city":', '"Berlin"}'] };
  const format = zodTextFormat(City, 'city');
  const answer = await clientOf(edge).responses.parse({ ...askedOf(edge), text: { format } });
  expect(answer.output_parsed).toEqual({ city: 'Berlin' });
  const sent = edge.stub.requests.at(-1)?.body['response_format'];
  expect(sent).toMatchObject({ type: 'json_schema', json_schema: { name: 'city' } });
}

async function stored(edge: RunningEdge): Promise<void> {
  const { responses } = clientOf(edge);
  const first = await responses.create({ ...askedOf(edge), store: true });
  const again = { ...askedOf(edge), input: 'Again.', previous_response_id: first.id };
  const second = await responses.create({ ...again, store: true });
  const events = responses.stream({ ...again, previous_response_id: second.id });
  await events.finalResponse();
  expect(edge.stub.requests.at(-1)?.body['messages']).toEqual([
    { role: 'user', content: 'Say hello.' },
    { role: 'assistant', content: answerText },
    { role: 'user', content: 'Again.' },
    { role: 'assistant', content: answerText },
    { role: 'user', content: 'Again.' },
  ]);
  expect(await responses.retrieve(first.id)).toMatchObject({ output: first.output });
  const { data } = await responses.inputItems.list(second.id);
  expect(data).toMatchObject([{ role: 'user', content: 'Again.' }]);
  await responses.delete(first.id);
  const gone = { status: 404, code: 'not_found' };
  await expect(responses.retrieve(first.id)).rejects.toMatchObject(gone);
  await expect(responses.create(again)).rejects.toMatchObject(gone);
  const other = new OpenAI({ ...connectionOf(edge), apiKey: edge.otherApiKey, maxRetries: 0 });
  await expect(other.responses.retrieve(second.id)).rejects.toMatchObject(gone);
}

async function vercel(edge: RunningEdge): Promise<void> {
  const model = createOpenAI(connectionOf(edge))(edge.model);
  const options = { model, maxRetries: 0, telemetry: { isEnabled: false } };
  const plain = await generateText({ ...options, prompt: 'Hi.' });
  expect(plain.text).toBe(answerText);
  expect(await streamText({ ...options, prompt: 'Hi.' }).text).toBe(answerText);
  // The provider names items by their ids unless they are said not to be stored.
  for (const store of [true, false]) {
    edge.stub.script = calling;
    const called = await generateText({
      ...options,
      prompt: 'Weather?',
      tools: { weather: tool({ ...described, inputSchema: City, execute: toolOf(edge) }) },
      stopWhen: isStepCount(2),
      providerOptions: { openai: { store } },
    });
    expect(called.text).toBe(answerText);
    expect(hasToolResult(edge)).toBe(true);
  }
  edge.stub.script = { ...plainScript, words: ['{"city":"Berlin"}'] };
  const object = await generateText({
    ...options,
    prompt: 'Where?',
    output: Output.object({ schema: City }),
  });
  expect(object.output).toEqual({ city: 'Berlin' });
}

async function agents(edge: RunningEdge): Promise<void> {
  const modelProvider = new OpenAIProvider({ openAIClient: clientOf(edge) });
  const runner = new Runner({ modelProvider, tracingDisabled: true });
  const weather = agentTool({ ...described, parameters: City, execute: toolOf(edge) });
  const agent = new Agent({ name: 'Weather', model: edge.model, tools: [weather] });
  edge.stub.script = calling;
  expect((await runner.run(agent, 'Weather?')).finalOutput).toBe(answerText);
  expect(hasToolResult(edge)).toBe(true);
  edge.stub.script = calling;
  const streamed = await runner.run(agent, 'Weather?', { stream: true });
  await streamed.completed;
  expect(streamed.finalOutput).toBe(answerText);
}

async function langchain(edge: RunningEdge): Promise<void> {
  const { baseURL, apiKey } = connectionOf(edge);
  const model = new ChatOpenAI({
    model: edge.model,
    apiKey,
    configuration: { baseURL },
    useResponsesApi: true,
    maxRetries: 0,
  });
  expect((await model.invoke('Hi.')).text).toBe(answerText);
  const weather = langchainTool(toolOf(edge), { ...described, schema: City });
  edge.stub.script = calling;
  const first = await model.bindTools([weather]).invoke('Weather?');
  const [call] = first.tool_calls ?? [];
  const result = await weather.invoke({
    ...call,
    name: 'weather',
    args: { city: 'Berlin' },
    type: 'tool_call',
  });
  const second = await model.bindTools([weather]).invoke(['Weather?', first, result]);
  expect(second.text).toBe(answerText);
  expect(hasToolResult(edge)).toBe(true);
  edge.stub.script = { ...plainScript, words: ['{"city":"Berlin"}'] };
  const structured = model.withStructuredOutput(City, { method: 'jsonSchema' });
  expect(await structured.invoke('Where?')).toEqual({ city: 'Berlin' });
}
