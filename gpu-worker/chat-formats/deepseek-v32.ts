/**
 * DeepSeek-V3.2's way to write a conversation, which the checkpoint has no template for. Only turns
 * behind the last one of the user keep their reasoning, so that a history reads differently as soon
 * as the user speaks again. A developer's message is a turn of the user here.
 */
import { z } from 'zod';
import { dsmlMark } from '../tokenizer/call-marks.ts';
import type { ChatMessage, ChatRequest } from '../tokenizer/chat-template.ts';
import { InvalidPromptError } from '../tokenizer/content-marks.ts';
import { controlPattern } from '../tokenizer/tokenizer.ts';
import type { PromptPart } from '../tokenizer/tokenizer.ts';
import { toolsBegin, toolsEnd } from './deepseek-v32-tools.ts';
import { jsonMembers, pythonJson } from './python-json.ts';

export const v32Marks = {
  begin: '<｜begin▁of▁sentence｜>',
  end: '<｜end▁of▁sentence｜>',
  user: '<｜User｜>',
  assistant: '<｜Assistant｜>',
  thinkBegin: '<think>',
  thinkEnd: '</think>',
} as const;

const ownControl = controlPattern([...Object.values(v32Marks), dsmlMark]);

export interface V32Prompt {
  /** Marks that the format wrote are control tokens; nothing that others wrote is. */
  readonly parts: readonly PromptPart[];
  readonly insideReasoning: boolean;
}

/** @throws InvalidPromptError for a conversation that the format can't write. */
export function encodeV32(request: ChatRequest): V32Prompt {
  const thinking = request.thinking ?? false;
  const messages = keptMessages(request.messages, thinking);
  const lastUser = lastUserIndex(messages);
  const hasSystem = request.messages[0]?.role === 'system';
  const prompt = new PromptText();
  prompt.own(v32Marks.begin);
  if (!hasSystem) writeHead(prompt, request);
  for (const [index, message] of messages.entries()) {
    const isContinued = request.promptEnd === 'continue-final' && index === messages.length - 1;
    writeMessage(prompt, message, { messages, index, lastUser, thinking, isContinued });
    if (hasSystem && index === 0) writeHead(prompt, request);
  }
  return { parts: prompt.parts, insideReasoning: prompt.lastControl === v32Marks.thinkBegin };
}

class PromptText {
  readonly parts: PromptPart[] = [];
  lastControl: string | null = null;

  /** Adds text of the format, with its marks. */
  own(text: string): void {
    let from = 0;
    for (const match of text.matchAll(ownControl)) {
      const [content] = match;
      this.said(text.slice(from, match.index));
      this.parts.push({ kind: 'control', content });
      this.lastControl = content;
      from = match.index + content.length;
    }
    this.said(text.slice(from));
  }

  /** Adds text that others wrote: nothing in it is a mark. */
  said(text: string): void {
    if (text !== '') this.parts.push({ kind: 'text', text });
  }
}

interface Turn {
  readonly messages: readonly ChatMessage[];
  readonly index: number;
  readonly lastUser: number;
  readonly thinking: boolean;
  /** True of the last message if the answer goes on from it. */
  readonly isContinued: boolean;
}

/** A model that thinks is not shown what a developer said before the user's last turn. */
function keptMessages(messages: readonly ChatMessage[], thinking: boolean): readonly ChatMessage[] {
  if (!thinking) return messages;
  const lastUser = lastUserIndex(messages);
  return messages.filter(({ role }, index) => role !== 'developer' || index >= lastUser);
}

function lastUserIndex(messages: readonly ChatMessage[]): number {
  return messages.findLastIndex(({ role }) => role === 'user' || role === 'developer');
}

/** The tools and the schema of the answer belong to the system's text, if only an empty one. */
function writeHead(prompt: PromptText, { tools = [], answerSchema }: ChatRequest): void {
  if (tools.length > 0) {
    prompt.own(`\n\n${toolsBegin}`);
    for (const tool of tools) prompt.said(`${pythonJson(functionOf(tool))}\n`);
    prompt.own(toolsEnd);
  }
  if (answerSchema === undefined) return;
  prompt.own('\n\n## Response Format:\n\n');
  prompt.own('You MUST strictly adhere to the following schema to reply:\n');
  prompt.said(pythonJson(answerSchema));
}

function functionOf(tool: unknown): unknown {
  return z.object({ function: z.unknown() }).parse(tool).function;
}

function writeMessage(prompt: PromptText, message: ChatMessage, turn: Turn): void {
  const { index, lastUser, thinking } = turn;
  const content = message.content ?? '';
  switch (message.role) {
    case 'system':
      return prompt.said(content);
    case 'developer':
    case 'user':
      prompt.own(v32Marks.user);
      if (message.role === 'developer') prompt.own("\n\n# The user's message is: ");
      prompt.said(content);
      prompt.own(v32Marks.assistant);
      return prompt.own(thinkMark(thinking && index === lastUser));
    case 'tool':
      return writeResult(prompt, content, turn);
    case 'assistant':
      return writeAnswer(prompt, message, turn);
    default:
      throw new InvalidPromptError(`the chat format has no role ${message.role}`);
  }
}

/** Results that follow one another stand together. */
function writeResult(prompt: PromptText, content: string, turn: Turn): void {
  const { messages, index, lastUser, thinking } = turn;
  if (messages[index - 1]?.role !== 'tool') prompt.own('\n\n<function_results>');
  prompt.own('\n<result>');
  prompt.said(content);
  prompt.own('</result>');
  if (messages[index + 1]?.role === 'tool') return;
  prompt.own('\n</function_results>\n\n');
  prompt.own(thinkMark(thinking && index >= lastUser));
}

function thinkMark(isOpen: boolean): string {
  return isOpen ? v32Marks.thinkBegin : v32Marks.thinkEnd;
}

function writeAnswer(prompt: PromptText, message: ChatMessage, turn: Turn): void {
  const { index, lastUser, thinking, isContinued } = turn;
  if (thinking && index > lastUser) {
    prompt.said(String(message.reasoning_content ?? ''));
    prompt.own(v32Marks.thinkEnd);
  }
  prompt.said(message.content ?? '');
  const calls = callsSchema.parse(message.tool_calls ?? []);
  if (calls.length > 0) writeCalls(prompt, calls);
  if (!isContinued) prompt.own(v32Marks.end);
}

const callsSchema = z.array(
  z.object({ function: z.object({ name: z.string(), arguments: z.string() }) }),
);

function writeCalls(prompt: PromptText, calls: z.infer<typeof callsSchema>): void {
  prompt.own(`\n\n<${dsmlMark}function_calls>\n`);
  for (const { function: called } of calls) {
    const members = jsonMembers(called.arguments.trim() === '' ? '{}' : called.arguments);
    if (members === null) {
      throw new InvalidPromptError(`the arguments of a call of ${called.name} are no JSON object`);
    }
    prompt.own(`<${dsmlMark}invoke name="`);
    prompt.said(called.name);
    prompt.own('">\n');
    for (const [at, { key, text, json }] of members.entries()) {
      prompt.own(`${at === 0 ? '' : '\n'}<${dsmlMark}parameter name="`);
      prompt.said(key);
      prompt.own(`" string="${text !== null}">`);
      prompt.said(text ?? json);
      prompt.own(`</${dsmlMark}parameter>`);
    }
    prompt.own(`\n</${dsmlMark}invoke>\n`);
  }
  prompt.own(`</${dsmlMark}function_calls>`);
}
