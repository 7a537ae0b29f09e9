/** A whole chat completion out of its chunks. */
import { z } from 'zod';
import type { AnswerBuilder, AnswerHead } from './chunk.ts';
import { toOpenAiUsage } from './usage-formats.ts';

const toolCallDeltaSchema = z.looseObject({
  index: z.int().min(0).max(1024).default(0),
  id: z.string().nullish(),
  function: z
    .looseObject({ name: z.string().nullish(), arguments: z.string().nullish() })
    .nullish(),
});

export const chatChoiceSchema = z.looseObject({
  index: z.int().min(0).max(1024).default(0),
  delta: z
    .looseObject({
      content: z.string().nullish(),
      reasoning_content: z.string().nullish(),
      tool_calls: z.array(toolCallDeltaSchema).nullish(),
    })
    .nullish(),
  logprobs: z
    .looseObject({
      content: z.array(z.unknown()).nullish(),
      reasoning_content: z.array(z.unknown()).nullish(),
    })
    .nullish(),
  finish_reason: z.string().nullish(),
});
export type ChatChoiceDelta = z.infer<typeof chatChoiceSchema>;

interface Choice {
  content: string | null;
  reasoning: string | null;
  readonly toolCalls: { id: string; name: string; arguments: string }[];
  logprobs: { content: unknown[]; reasoning: unknown[] } | null;
  finishReason: string | null;
}

export function createChatAnswer(head: AnswerHead): AnswerBuilder {
  let rest: Readonly<Record<string, unknown>> = {};
  const choices: Choice[] = [];

  return {
    add(chunk) {
      const { id: _i, object: _o, model: _m, usage: _u, choices: deltas, ...others } = chunk;
      rest = { ...rest, ...others };
      for (const each of deltas) {
        const delta = chatChoiceSchema.safeParse(each).data;
        if (delta) addTo((choices[delta.index] ??= newChoice()), delta);
      }
    },

    finish({ usage, costNanoUsd }) {
      const { created, ...others } = rest;
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
        usage: { ...toOpenAiUsage(usage), cost_nano_usd: costNanoUsd },
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

function newChoice(): Choice {
  return { content: null, reasoning: null, toolCalls: [], logprobs: null, finishReason: null };
}

function addTo(choice: Choice, { delta, logprobs, finish_reason }: ChatChoiceDelta): void {
  if (typeof delta?.content === 'string') choice.content = (choice.content ?? '') + delta.content;
  if (typeof delta?.reasoning_content === 'string') {
    choice.reasoning = (choice.reasoning ?? '') + delta.reasoning_content;
  }
  for (const part of delta?.tool_calls ?? []) {
    const call = (choice.toolCalls[part.index] ??= { id: '', name: '', arguments: '' });
    call.id += part.id ?? '';
    call.name += part.function?.name ?? '';
    call.arguments += part.function?.arguments ?? '';
  }
  if (logprobs) {
    choice.logprobs ??= { content: [], reasoning: [] };
    choice.logprobs.content.push(...(logprobs.content ?? []));
    choice.logprobs.reasoning.push(...(logprobs.reasoning_content ?? []));
  }
  choice.finishReason = finish_reason ?? choice.finishReason;
}

function toWire(choice: Choice, index: number): object {
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
      ...(logprobs.reasoning.length > 0 && { reasoning_content: logprobs.reasoning }),
    },
    finish_reason: choice.finishReason,
  };
}
