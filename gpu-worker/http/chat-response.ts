/** The engine's events as an answer of the chat API, at once or in chunks. */
import { nothingComputed } from '../engine/request.ts';
import type {
  ChatChoice,
  ChatCompletion,
  ChatCompletionChunk,
  ChatDelta,
  ChatLogprobs,
  ChatTokenLogprob,
  ToolCall,
} from '../protocol.ts';
import { toChatLogprobs, toPromptLogprobs } from './logprobs.ts';
import type { ResponseHead, StreamedUsage } from './response-head.ts';
import type { RunEvent } from './run.ts';
import type { ToolCallParser } from './tool-calls.ts';
import { toWireUsage } from './usage.ts';

type Output = Extract<RunEvent, { kind: 'output' }>;

/** Chunks of a stream; each `next` waits for the engine. */
export async function* chatChunks(
  events: AsyncIterable<RunEvent>,
  options: {
    readonly head: ResponseHead;
    readonly choices: number;
    readonly usage: StreamedUsage;
    /** One per choice if the model was offered tools. */
    readonly toolParsers: readonly ToolCallParser[] | null;
  },
): AsyncGenerator<ChatCompletionChunk, void> {
  const { usage } = options;
  const head = { ...options.head, object: 'chat.completion.chunk' as const };
  const chunk = (
    event: RunEvent & { choice: number },
    choice: { delta: ChatDelta; logprobs?: ChatLogprobs | null; finish?: Finish },
  ): ChatCompletionChunk => ({
    ...head,
    choices: [
      {
        index: event.choice,
        delta: choice.delta,
        logprobs: choice.logprobs ?? null,
        finish_reason: null,
        ...choice.finish,
      },
    ],
    ...usage.during(event.usage),
  });

  for await (const event of events) {
    switch (event.kind) {
      case 'prompt':
        for (let choice = 0; choice < options.choices; choice++) {
          yield chunk({ ...event, choice }, { delta: { role: 'assistant', content: '' } });
        }
        break;
      case 'output': {
        const delta = toDelta(event, options.toolParsers?.[event.choice]);
        // Tokens without text of their own are told only to those who count them.
        const isEmpty = delta.content === '' || delta.reasoning_content === '';
        if (!isEmpty || event.logprobs !== null || usage.running) {
          yield chunk(event, { delta, logprobs: toLogprobs(event) });
        }
        break;
      }
      case 'finished': {
        if (event.reason === 'aborted') break;
        const parser = options.toolParsers?.[event.choice];
        const rest = parser?.flush() ?? '';
        if (rest !== '') yield chunk(event, { delta: { content: rest } });
        yield chunk(event, { delta: {}, finish: toFinish(event, parser) });
        break;
      }
      case 'end':
        if (usage.atEnd) yield { ...head, choices: [], usage: toWireUsage(event.usage) };
        break;
    }
  }
}

function toDelta({ channel, text }: Output, parser: ToolCallParser | undefined): ChatDelta {
  if (channel === 'reasoning') return { reasoning_content: text };
  if (!parser) return { content: text };
  const index = parser.count;
  const output = parser.push(text);
  if (output.calls.length === 0) return { content: output.text };
  return {
    ...(output.text !== '' && { content: output.text }),
    tool_calls: output.calls.map((call, offset) => ({ index: index + offset, ...call })),
  };
}

type Finish = Pick<ChatChoice, 'finish_reason' | 'stop_reason'>;

function toFinish(
  { reason, stopMatch }: Extract<RunEvent, { kind: 'finished' }>,
  parser: ToolCallParser | undefined,
): Finish {
  const stopped = parser !== undefined && parser.count > 0 ? 'tool_calls' : 'stop';
  return { finish_reason: reason === 'stop' ? stopped : 'length', stop_reason: stopMatch };
}

function toLogprobs({ channel, logprobs }: Output): ChatLogprobs | null {
  if (logprobs === null) return null;
  const entries = toChatLogprobs(logprobs);
  return channel === 'reasoning'
    ? { content: null, reasoning_content: entries }
    : { content: entries };
}

interface Gathered {
  text: string;
  reasoning: string;
  readonly textLogprobs: ChatTokenLogprob[];
  readonly reasoningLogprobs: ChatTokenLogprob[];
  readonly toolCalls: ToolCall[];
  finish: Finish;
}

/** The whole answer. Choices that the client's leaving cut short count as `length`. */
export async function gatherChat(
  events: AsyncIterable<RunEvent>,
  options: {
    readonly head: ResponseHead;
    readonly choices: number;
    readonly thinking: boolean;
    readonly logprobs: boolean;
    /** Alternatives per prompt token, if prompt logprobs were asked for. */
    readonly promptLogprobs: number | null;
    /** One per choice if the model was offered tools. */
    readonly toolParsers: readonly ToolCallParser[] | null;
  },
): Promise<ChatCompletion> {
  const choices = Array.from({ length: options.choices }, newGathered);
  let usage = nothingComputed;
  let promptLogprobs: Pick<ChatCompletion, 'prompt_logprobs'> = {};

  for await (const event of events) {
    usage = event.usage;
    switch (event.kind) {
      case 'prompt':
        if (event.logprobs !== null && options.promptLogprobs !== null) {
          const logprobs = toPromptLogprobs(event.logprobs, options.promptLogprobs);
          promptLogprobs = { prompt_logprobs: logprobs };
        }
        break;
      case 'output':
        addOutput(choices[event.choice], event, options.toolParsers?.[event.choice]);
        break;
      case 'finished': {
        const choice = choices[event.choice];
        if (!choice || event.reason === 'aborted') break;
        const parser = options.toolParsers?.[event.choice];
        choice.text += parser?.flush() ?? '';
        choice.finish = toFinish(event, parser);
        break;
      }
    }
  }
  return {
    ...options.head,
    object: 'chat.completion',
    choices: choices.map((choice, index) => ({
      index,
      message: {
        role: 'assistant',
        // OpenAI's clients take an empty text beside calls for an answer; null says there is none.
        content: choice.text === '' && choice.toolCalls.length > 0 ? null : choice.text,
        ...(choice.toolCalls.length > 0 && { tool_calls: choice.toolCalls }),
        ...(options.thinking && { reasoning_content: choice.reasoning }),
      },
      logprobs: options.logprobs ? gatheredLogprobs(choice, options.thinking) : null,
      ...choice.finish,
    })),
    usage: toWireUsage(usage),
    ...promptLogprobs,
  };
}

function newGathered(): Gathered {
  return {
    text: '',
    reasoning: '',
    textLogprobs: [],
    reasoningLogprobs: [],
    toolCalls: [],
    finish: { finish_reason: 'length', stop_reason: null },
  };
}

function addOutput(
  choice: Gathered | undefined,
  event: Output,
  parser: ToolCallParser | undefined,
): void {
  if (!choice) return;
  const entries = event.logprobs ? toChatLogprobs(event.logprobs) : [];
  if (event.channel === 'reasoning') {
    choice.reasoning += event.text;
    choice.reasoningLogprobs.push(...entries);
  } else {
    const { text, calls } = parser?.push(event.text) ?? { text: event.text, calls: [] };
    choice.text += text;
    choice.toolCalls.push(...calls);
    choice.textLogprobs.push(...entries);
  }
}

function gatheredLogprobs(choice: Gathered, thinking: boolean): ChatLogprobs {
  return {
    content: choice.textLogprobs,
    ...(thinking && { reasoning_content: choice.reasoningLogprobs }),
  };
}
