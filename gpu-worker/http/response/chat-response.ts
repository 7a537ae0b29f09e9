/** The engine's events as an answer of the chat API, at once or in chunks. */
import { nothingComputed } from '../../engine/request.ts';
import { WrittenItems } from '../../protocol/json-pieces.ts';
import { addToCalls } from '../../chat-formats/call-parser.ts';
import type { CallParser } from '../../chat-formats/call-parser.ts';
import type { ToolCall } from '../../protocol/messages.ts';
import type {
  ChatChoice,
  ChatCompletion,
  ChatCompletionChunk,
  ChatDelta,
  ChatLogprobs,
} from '../../protocol/responses.ts';
import { createChoiceOutputs, cutShort, isEmpty } from './choice-output.ts';
import type { ChoiceFinish, ChoicePiece } from './choice-output.ts';
import { toPromptLogprobs } from './wire-logprobs.ts';
import type { ResponseHead, StreamedUsage } from './response-head.ts';
import type { RunEvent } from '../run.ts';
import { toWireUsage } from './wire-usage.ts';

/** Chunks of a stream; each `next` waits for the engine. */
export async function* chatChunks(
  events: AsyncIterable<RunEvent>,
  options: {
    readonly head: ResponseHead;
    readonly choices: number;
    readonly usage: StreamedUsage;
    /** One per choice if the model was offered tools. */
    readonly toolParsers: readonly CallParser[] | null;
  },
): AsyncGenerator<ChatCompletionChunk, void> {
  const { usage } = options;
  const head = { ...options.head, object: 'chat.completion.chunk' as const };
  const chunk = (
    event: RunEvent & { choice: number },
    choice: { delta: ChatDelta; logprobs?: ChatLogprobs | null; finish?: ChoiceFinish },
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

  const choices = createChoiceOutputs(options.choices, options.toolParsers);
  for await (const event of events) {
    switch (event.kind) {
      case 'prompt':
        for (let choice = 0; choice < options.choices; choice++) {
          yield chunk({ ...event, choice }, { delta: { role: 'assistant', content: '' } });
        }
        break;
      case 'output': {
        const choice = choices[event.choice];
        if (!choice) break;
        const piece = choice.push(event);
        // Tokens that add nothing yet are told only to those who count them.
        if (!isEmpty(piece)) {
          yield chunk(event, { delta: toDelta(piece), logprobs: choice.takeLogprobs() });
        } else if (usage.running) yield chunk(event, { delta: {} });
        break;
      }
      case 'finished': {
        const choice = choices[event.choice];
        if (!choice || event.reason === 'aborted') break;
        const { rest, finish } = choice.finish(event);
        if (!isEmpty(rest)) yield chunk(event, { delta: toDelta(rest) });
        yield chunk(event, { delta: {}, finish, logprobs: choice.takeLogprobs() });
        break;
      }
      case 'end':
        if (usage.atEnd) yield { ...head, choices: [], usage: toWireUsage(event.usage) };
        break;
    }
  }
}

function toDelta({ reasoning, text, calls }: ChoicePiece): ChatDelta {
  return {
    ...(reasoning !== '' && { reasoning_content: reasoning }),
    ...(text !== '' && { content: text }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
}

type WrittenChoice = Omit<ChatChoice, 'logprobs'> & { readonly logprobs: object | null };
type WrittenAnswer = Omit<ChatCompletion, 'choices'> & {
  readonly choices: readonly WrittenChoice[];
};

interface Gathered {
  text: string;
  reasoning: string;
  readonly logprobs: { readonly content: WrittenItems; readonly reasoning: WrittenItems };
  readonly toolCalls: ToolCall[];
  finish: ChoiceFinish;
}

/**
 * The whole answer as it is written; choices that the client's leaving cut short count as `length`.
 */
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
    readonly toolParsers: readonly CallParser[] | null;
  },
): Promise<WrittenAnswer> {
  const outputs = createChoiceOutputs(options.choices, options.toolParsers);
  const choices = outputs.map(newGathered);
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
      case 'output': {
        const output = outputs[event.choice];
        const choice = choices[event.choice];
        if (!output || !choice) break;
        addPiece(choice, output.push(event));
        addLogprobs(choice, output.takeLogprobs());
        break;
      }
      case 'finished': {
        const finished = outputs[event.choice]?.finish(event);
        const choice = choices[event.choice];
        if (!finished || !choice) break;
        addPiece(choice, finished.rest);
        choice.finish = finished.finish;
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
      logprobs: options.logprobs ? writtenLogprobs(choice, options.thinking) : null,
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
    logprobs: { content: new WrittenItems(), reasoning: new WrittenItems() },
    toolCalls: [],
    finish: cutShort,
  };
}

function addPiece(choice: Gathered, piece: ChoicePiece): void {
  choice.text += piece.text;
  choice.reasoning += piece.reasoning;
  addToCalls(choice.toolCalls, piece.calls);
}

/** Written as they come, they take little room, and no time at the end. */
function addLogprobs({ logprobs }: Gathered, taken: ChatLogprobs | null): void {
  for (const each of taken?.content ?? []) logprobs.content.push(each);
  for (const each of taken?.reasoning_content ?? []) logprobs.reasoning.push(each);
}

function writtenLogprobs({ logprobs }: Gathered, thinking: boolean) {
  return {
    content: logprobs.content,
    ...(thinking && { reasoning_content: logprobs.reasoning }),
  };
}
