/**
 * Anthropic's conversations as the worker's: blocks of a message become messages and fields of
 * messages, and what system messages change in the middle takes effect.
 */
import type { Message, Tool } from '../../../gpu-worker/protocol/messages.ts';
import type {
  AnthropicMessage,
  AnthropicTool,
  AssistantMessage,
  SystemMessage,
  UserMessage,
} from './message-schemas.ts';
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

/** What a search of another provider found stands between the words before and after it. */
function fromAssistant({ content }: AssistantMessage): Message[] {
  if (typeof content === 'string') return [{ role: 'assistant', content }];
  const messages: Message[] = [];
  let said: AssistantBlock[] = [];
  for (const block of content) {
    if (block.type !== 'web_search_tool_result') {
      said.push(block);
      continue;
    }
    if (said.length > 0) messages.push(fromBlocks(said));
    said = [];
    messages.push({ role: 'tool', tool_call_id: block.tool_use_id, content: foundText(block) });
  }
  return said.length > 0 ? [...messages, fromBlocks(said)] : messages;
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

// ---- what system messages change ---------------------------------------------------------------

/** The tools at the conversation's end; null if there are none. */
export function toTools({ tools, messages }: MessagesRequest): Tool[] | null {
  const known = new Map((tools ?? []).map((tool) => [tool.name, tool]));
  const offered = new Set(known.keys());
  for (const { type, tool } of messages.flatMap(toolChanges)) {
    if (type === 'tool_removal') offered.delete(tool.name);
    else if (tool.type === 'tool_reference') offered.add(tool.name);
    else {
      known.set(tool.definition.name, tool.definition);
      offered.add(tool.definition.name);
    }
  }
  if (offered.size === 0) return null;
  return [...known.values()].filter(({ name }) => offered.has(name)).map(toTool);
}

function toolChanges(message: AnthropicMessage) {
  if (message.role !== 'system' || typeof message.content === 'string') return [];
  return (message.content ?? []).filter((block) => block.type !== 'text');
}

function toTool(tool: AnthropicTool): Tool {
  return {
    type: 'function',
    function: {
      name: tool.name,
      ...(tool.description != null && { description: tool.description }),
      parameters: tool.input_schema,
      ...(tool.strict != null && { strict: tool.strict }),
    },
  };
}

/** The last that was said stands. */
export function toEffort({ messages, output_config: config }: MessagesRequest) {
  const said = messages.map((each) =>
    each.role === 'system' ? each.output_config?.effort : undefined,
  );
  return said.findLast((effort) => effort != null) ?? config?.effort ?? null;
}
