/**
 * Turns Anthropic's conversations into the worker's: blocks of a message become messages and fields
 * of messages.
 */
import type { Message } from '../../../gpu-worker/protocol/messages.ts';
import type { AssistantMessage, SystemMessage, UserMessage } from './message-schemas.ts';
import type { MessagesRequest } from './request-schemas.ts';

export function toMessages({ system, messages }: MessagesRequest): Message[] {
  const all: Message[] = system ? [{ role: 'system', content: toContent(system) }] : [];
  const lastUser = messages.findLastIndex((each) => each.role === 'user');
  for (const [index, each] of messages.entries()) {
    if (each.role === 'user') all.push(...fromUser(each));
    else if (each.role === 'assistant') all.push(...fromAssistant(each));
    else if (each.clear_at !== 'next_user_message' || index > lastUser) {
      all.push(...fromSystem(each));
    }
  }
  const end = all.at(-1);
  if (messages.at(-1)?.role !== 'assistant' || end?.role !== 'assistant') return all;
  // A conversation that ends with the assistant is continued from its last words.
  return [...all.slice(0, -1), { ...end, prefix: true }];
}

function fromSystem({ content }: SystemMessage): Message[] {
  if (typeof content === 'string') return [{ role: 'system', content }];
  const texts = (content ?? []).filter((block) => block.type === 'text');
  return texts.length === 0 ? [] : [{ role: 'system', content: toContent(texts) }];
}

/** The results of tools are messages of their own in OpenAI's protocol, and come first. */
function fromUser({ content }: UserMessage): Message[] {
  if (typeof content === 'string') return [{ role: 'user', content }];
  const results: Message[] = [];
  const texts: { text: string }[] = [];
  for (const block of content) {
    if (block.type === 'tool_result') {
      results.push({ role: 'tool', tool_call_id: block.tool_use_id, content: resultText(block) });
    } else texts.push({ text: blockText(block) });
  }
  return texts.length === 0 ? results : [...results, { role: 'user', content: toContent(texts) }];
}

type UserBlock = Exclude<UserMessage['content'], string>[number];
type ToolResult = Extract<UserBlock, { type: 'tool_result' }>;
type ReadBlock = Exclude<ToolResult['content'], string | null | undefined>[number];

function blockText(block: ReadBlock): string {
  switch (block.type) {
    case 'text':
      return block.text;
    case 'search_result':
      return [block.title, block.source, ...block.content.map(({ text }) => text)].join('\n');
    case 'document':
      return [block.title, block.context, block.source.data].filter(Boolean).join('\n');
    case 'tool_reference':
      return `The tool ${block.tool_name} is available.`;
  }
}

/** OpenAI's protocol has no mark of a tool's failure, so the text says it. */
function resultText({ content, is_error: isError }: ToolResult) {
  const texts =
    typeof content === 'string'
      ? [{ text: content }]
      : (content ?? []).map((block) => ({ text: blockText(block) }));
  if (!isError) return toContent(texts);
  const [first, ...others] = texts;
  return toContent([{ text: first?.text ? `Error: ${first.text}` : 'Error' }, ...others]);
}

type AssistantBlock = Exclude<AssistantMessage['content'], string>[number];

/** The results of another provider's search stand between the words before and after it. */
function fromAssistant({ content }: AssistantMessage): Message[] {
  if (typeof content === 'string') return [{ role: 'assistant', content }];
  const messages: Message[] = [];
  let blocks: AssistantBlock[] = [];
  for (const block of content) {
    if (block.type !== 'web_search_tool_result') {
      blocks.push(block);
      continue;
    }
    if (blocks.length > 0) messages.push(fromBlocks(blocks));
    blocks = [];
    messages.push({ role: 'tool', tool_call_id: block.tool_use_id, content: foundText(block) });
  }
  return blocks.length > 0 ? [...messages, fromBlocks(blocks)] : messages;
}

function foundText({
  content,
}: Extract<AssistantBlock, { type: 'web_search_tool_result' }>): string {
  if (!Array.isArray(content)) return `Error: ${content.error_code}`;
  return content.map(({ title, url }) => [title, url].filter(Boolean).join('\n')).join('\n\n');
}

function fromBlocks(blocks: readonly AssistantBlock[]): Message {
  const texts = blocks.filter((block) => block.type === 'text');
  const thinking = blocks.filter((block) => block.type === 'thinking');
  const calls = blocks.filter(
    (block) => block.type === 'tool_use' || block.type === 'server_tool_use',
  );
  return {
    role: 'assistant',
    content: texts.length === 0 ? null : toContent(texts),
    ...(thinking.length > 0 && {
      reasoning_content: thinking.map((block) => block.thinking).join(''),
    }),
    ...(calls.length > 0 && {
      tool_calls: calls.map(({ id, name, input }) => ({
        id,
        type: 'function' as const,
        function: { name, arguments: JSON.stringify(input) },
      })),
    }),
  };
}

/** One text is sent as text, which is what most chat formats expect. */
function toContent(
  content: string | readonly { readonly text: string }[],
): string | { type: 'text'; text: string }[] {
  if (typeof content === 'string') return content;
  if (content.length <= 1) return content[0]?.text ?? '';
  return content.map(({ text }) => ({ type: 'text', text }));
}
