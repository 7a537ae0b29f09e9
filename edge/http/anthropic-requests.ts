/** Reads the requests of `/anthropic/v1/messages` and turns them into the worker's chat requests. */
import type { Message, ResponseFormat, Tool } from '../../gpu-worker/protocol.ts';
import { createAnthropicAnswer } from '../stream/anthropic-answer.ts';
import { createAnthropicEncoder } from '../stream/anthropic-events.ts';
import type { InferenceRequest } from './inference-request.ts';
import { chatParts, choiceWithoutTools } from './openai-requests.ts';
import { parseRequest } from './parse-request.ts';
import {
  countTokensRequestSchema,
  messagesRequestSchema,
  type AnthropicMessage,
  type MessagesRequest,
} from './request-schemas.ts';

/** @throws ApiError naming the parameter at fault. */
export function parseMessagesRequest(json: unknown): InferenceRequest {
  return toInference(parseRequest(messagesRequestSchema, json, 'anthropic'));
}

/** A message's prompt alone. @throws ApiError naming the parameter at fault. */
export function parseCountRequest(json: unknown): InferenceRequest {
  return toInference({
    ...parseRequest(countTokensRequestSchema, json, 'anthropic'),
    max_tokens: 1,
  });
}

function toInference(request: MessagesRequest): InferenceRequest {
  const messages = toMessages(request);
  const tools = request.tools?.length ? request.tools.map(toTool) : null;
  const choice = request.tool_choice?.type;
  if (tools === null && (choice === 'any' || choice === 'tool')) throw choiceWithoutTools();
  const thinking = request.thinking?.type;
  const { effort } = request.output_config ?? {};
  const format = toResponseFormat(request);
  return {
    model: request.model,
    stream: request.stream ?? false,
    workerPath: '/v1/chat/completions',
    workerBody: {
      model: request.model,
      messages,
      ...(tools && { tools, ...toolChoice(request) }),
      ...(request.stop_sequences && { stop: request.stop_sequences }),
      ...(request.temperature != null && { temperature: request.temperature }),
      ...(request.top_p != null && { top_p: request.top_p }),
      ...(request.top_k != null && { top_k: request.top_k }),
      ...(thinking && { thinking: { type: thinking === 'disabled' ? 'disabled' : 'enabled' } }),
      ...(effort && { reasoning_effort: effort }),
      ...(format && { response_format: format }),
    },
    cacheScope: request.metadata?.user_id ?? '',
    outputTokensStated: request.max_tokens,
    prompts: 1,
    answersEach: 1,
    promptParts: chatParts({ messages, tools, response_format: format }),
    promptTokens: null,
    hasTools: tools !== null || messages.some((each) => each.role === 'tool'),
    answer: {
      idPrefix: 'msg_',
      encoder: createAnthropicEncoder,
      builder: createAnthropicAnswer,
    },
  };
}

function toMessages({ system, messages }: MessagesRequest): Message[] {
  const head: Message[] = system ? [{ role: 'system', content: toContent(system) }] : [];
  const last = messages.at(-1);
  return messages.reduce<Message[]>((all, each) => {
    if (each.role === 'user') return [...all, ...fromUser(each)];
    const said = fromAssistant(each);
    const end = said.at(-1);
    if (each !== last || end?.role !== 'assistant') return [...all, ...said];
    // A conversation that ends with the assistant is continued from its last words.
    return [...all, ...said.slice(0, -1), { ...end, prefix: true }];
  }, head);
}

type UserMessage = Extract<AnthropicMessage, { role: 'user' }>;
type AssistantMessage = Extract<AnthropicMessage, { role: 'assistant' }>;

/** The results of tools are messages of their own in OpenAI's protocol, and come first. */
function fromUser({ content }: UserMessage): Message[] {
  if (typeof content === 'string') return [{ role: 'user', content }];
  const results: Message[] = [];
  const texts: { type: 'text'; text: string }[] = [];
  for (const block of content) {
    if (block.type === 'text') texts.push(block);
    else {
      const text = toContent(block.content ?? '');
      results.push({
        role: 'tool',
        tool_call_id: block.tool_use_id,
        content: block.is_error && typeof text === 'string' ? `Error: ${text}` : text,
      });
    }
  }
  return texts.length === 0 ? results : [...results, { role: 'user', content: toContent(texts) }];
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

function toTool(tool: NonNullable<MessagesRequest['tools']>[number]): Tool {
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

function toResponseFormat({ output_config: config }: MessagesRequest): ResponseFormat | null {
  if (!config?.format) return null;
  const { schema } = config.format;
  return { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } };
}

function toolChoice({ tool_choice: choice }: MessagesRequest): object {
  const isSingle = choice && choice.type !== 'none' && choice.disable_parallel_tool_use;
  return { ...chosenTool(choice), ...(isSingle && { parallel_tool_calls: false }) };
}

function chosenTool(choice: MessagesRequest['tool_choice']): object {
  switch (choice?.type) {
    case undefined:
      return {};
    case 'auto':
    case 'none':
      return { tool_choice: choice.type };
    case 'any':
      return { tool_choice: 'required' };
    case 'tool':
      return { tool_choice: { type: 'function', function: { name: choice.name } } };
  }
}
