/** A whole chat completion out of its chunks. */
import { WrittenItems } from '../../../gpu-worker/protocol/json-pieces.ts';
import type { Choice, Chunk } from '../../engines/chunk.ts';
import { billFields } from '../answer-format.ts';
import type { AnswerBuilder, AnswerHead } from '../answer-format.ts';
import { toOpenAiUsage } from './usage.ts';

interface ChatChoice {
  content: string | null;
  reasoning: string | null;
  readonly toolCalls: { id: string; name: string; arguments: string }[];
  logprobs: { readonly content: WrittenItems; readonly reasoning: WrittenItems } | null;
  finish: Pick<Choice, 'finish_reason' | 'stop_reason' | 'stopped_by'>;
}

export function createChatAnswer(head: AnswerHead): AnswerBuilder {
  let rest: Omit<Chunk, 'choices'> = {};
  const choices: ChatChoice[] = [];

  return {
    add(chunk) {
      const { choices: pieces, ...others } = chunk;
      rest = { ...rest, ...others };
      for (const piece of pieces) addTo((choices[piece.index] ??= newChoice()), piece);
    },

    finish({ usage, ...bill }) {
      const { created, object: _object, ...others } = rest;
      const { id, model, ...tier } = head;
      return {
        id,
        object: 'chat.completion',
        created,
        model,
        ...tier,
        ...others,
        // flatMap, unlike map, leaves out the places of choices that never came.
        choices: choices.flatMap(toWire),
        usage: { ...toOpenAiUsage(usage), ...billFields(bill) },
      };
    },

    reply() {
      const [only, ...others] = choices;
      // Clients differ in how they send reasoning and tool calls back; plain text is plain.
      if (!only || others.length > 0 || only.reasoning !== null || only.toolCalls.length > 0) {
        return null;
      }
      return { role: 'assistant', content: only.content ?? '' };
    },
  };
}

function newChoice(): ChatChoice {
  return {
    content: null,
    reasoning: null,
    toolCalls: [],
    logprobs: null,
    finish: { finish_reason: null },
  };
}

function addTo(choice: ChatChoice, piece: Choice): void {
  const { delta, logprobs, finish_reason, stop_reason, stopped_by } = piece;
  const { content, reasoning_content: reasoning, tool_calls: calls = [] } = delta ?? {};
  if (content !== undefined) choice.content = (choice.content ?? '') + content;
  if (reasoning !== undefined) choice.reasoning = (choice.reasoning ?? '') + reasoning;
  for (const { index, id = '', function: part } of calls) {
    const call = (choice.toolCalls[index] ??= { id, name: part.name ?? '', arguments: '' });
    call.arguments += part.arguments;
  }
  if (logprobs) {
    choice.logprobs ??= { content: new WrittenItems(), reasoning: new WrittenItems() };
    for (const each of logprobs.content ?? []) choice.logprobs.content.push(each);
    for (const each of logprobs.reasoning_content ?? []) choice.logprobs.reasoning.push(each);
  }
  if (finish_reason === null) return;
  choice.finish = {
    finish_reason,
    ...(stop_reason !== undefined && { stop_reason }),
    ...(stopped_by !== undefined && { stopped_by }),
  };
}

function toWire(choice: ChatChoice, index: number): object {
  const { toolCalls, logprobs } = choice;
  const hasCalls = toolCalls.length > 0;
  return {
    index,
    message: {
      role: 'assistant',
      content:
        choice.content === '' && hasCalls ? null : (choice.content ?? (hasCalls ? null : '')),
      ...(choice.reasoning !== null && { reasoning_content: choice.reasoning }),
      ...(hasCalls && {
        tool_calls: toolCalls.flatMap((call) => ({
          id: call.id,
          type: 'function',
          function: { name: call.name, arguments: call.arguments },
        })),
      }),
    },
    logprobs: logprobs && {
      content: logprobs.content,
      ...(logprobs.reasoning.texts.length > 0 && { reasoning_content: logprobs.reasoning }),
    },
    ...choice.finish,
  };
}
