/** A conversation as prompt tokens, in the model's own chat format. */
import type { ChatFormat } from '../../chat-formats/chat-format.ts';
import { schemaOfFormat } from '../../protocol/response-format.ts';
import type { ChatMessage, ChatRequest } from '../../tokenizer/chat-template.ts';
import { InvalidPromptError } from '../../tokenizer/content-marks.ts';
import type { Message, Tool } from '../../protocol/messages.ts';
import type { TokenizeRequest } from '../../protocol/requests.ts';
import { ApiError } from '../api-error.ts';
import { promptTokensMax, refuseTooLong } from './engine-request.ts';
import type { PromptModel } from '../text/text-model.ts';
import { readThinking } from './thinking.ts';
import type { Thinking } from './thinking.ts';

export interface ChatPrompt {
  /** The prompt as the template wrote it. */
  readonly text: string;
  readonly tokens: Int32Array;
  /** Output up to this token is reasoning; null when the answer starts at once. */
  readonly reasoningEndToken: number | null;
  /** The functions that the output may call, as they were sent. */
  readonly tools: readonly Tool[];
}

/** The part of a chat format that says how requests are read. */
export type FormatRules = Pick<ChatFormat, 'thinksByDefault' | 'efforts' | 'showsAsSent' | 'calls'>;

/** The facts that a conversation is written by, whatever tokenizer there is. */
export interface Conversation {
  readonly chat: ChatRequest;
  readonly thinking: Thinking;
  /** The functions that the output may call, as they were sent. */
  readonly tools: readonly Tool[];
}

/** @throws ApiError 400 naming the parameter. */
export function readConversation(format: FormatRules, body: TokenizeRequest): Conversation {
  const thinking = readThinking(format, body);
  const goesOn = continuesLast(body.messages);
  const tools = offeredTools(format, body);
  const stated = body.response_format ? schemaOfFormat(body.response_format) : null;
  const toMessage = (message: Message, index: number): ChatMessage =>
    toTemplateMessage(message, { index, isShown: format.showsAsSent });
  const chat: ChatRequest = {
    messages: body.messages.map(toMessage),
    tools: tools.map((tool) => (format.showsAsSent ? tool : toTemplateTool(tool))),
    thinking: thinking.wanted,
    variables: thinking.variables,
    ...(stated !== null && { answerSchema: stated.schema }),
    promptEnd: goesOn ? 'continue-final' : 'generation-prompt',
  };
  return { chat, thinking, tools };
}

/** @throws ApiError 400 naming the parameter. */
export function renderChat(model: PromptModel, body: TokenizeRequest): ChatPrompt {
  const { chat, thinking, tools } = readConversation(model.chatFormat, body);
  const rendered = render(model, chat);
  // A thinking model may go on without reasoning after a tool's result or in a continued message.
  const lastTurn = body.messages.findLast(({ role }) => role !== 'system' && role !== 'developer');
  const isAnswer = lastTurn?.role === 'user';
  if (thinking.param !== null && isAnswer && thinking.wanted && !rendered.insideReasoning) {
    throw unsupported(thinking.param, 'the model has no thinking mode');
  }
  const { reasoningEndToken } = model.chatFormat;
  return {
    text: rendered.text,
    tokens: rendered.tokens,
    reasoningEndToken: rendered.insideReasoning ? reasoningEndToken : null,
    tools,
  };
}

/** The tools that the model is told of. @throws ApiError 400 for what can't be kept. */
function offeredTools(format: FormatRules, body: TokenizeRequest): readonly Tool[] {
  const { tools, tool_choice: choice } = body;
  if (!tools || tools.length === 0) {
    if (choice && choice !== 'none' && choice !== 'auto') {
      throw new ApiError('invalid_value', "'tool_choice' asks for a call and 'tools' are none.", {
        param: 'tool_choice',
      });
    }
    return [];
  }
  if (format.calls === null) throw unsupported('tools', 'the model calls no tools');
  if (choice === 'none') return [];
  const name = typeof choice === 'object' ? choice?.function.name : undefined;
  if (name !== undefined && !tools.some((tool) => tool.function.name === name)) {
    throw new ApiError('invalid_value', `Invalid 'tool_choice': no tool is called '${name}'.`, {
      param: 'tool_choice.function.name',
    });
  }
  return tools;
}

function unsupported(param: string, reason: string): ApiError {
  return new ApiError('unsupported_parameter', `'${param}' is not supported: ${reason}.`, {
    param,
  });
}

/** Tells whether the last message is the beginning of the answer. @throws ApiError 400 */
function continuesLast(messages: readonly Message[]): boolean {
  const index = messages.findIndex((message) => message.role === 'assistant' && message.prefix);
  if (index === -1) return false;
  const message = messages[index];
  if (index !== messages.length - 1) {
    throw new ApiError(
      'invalid_value',
      'Only the last of the messages can have a prefix to go on from.',
      {
        param: `messages[${index}].prefix`,
      },
    );
  }
  if (message?.role === 'assistant' && typeof message.reasoning_content === 'string') {
    throw new ApiError(
      'unsupported_parameter',
      "The reasoning of 'messages' can't be continued: its end is the model's to decide.",
      { param: `messages[${index}].reasoning_content` },
    );
  }
  return true;
}

/** @throws ApiError 400 */
function toTemplateMessage(
  message: Message,
  { index, isShown }: { index: number; isShown: boolean },
): ChatMessage {
  const text = messageText(message.content);
  switch (message.role) {
    case 'system':
      return { role: 'system', content: text };
    case 'developer':
      return { role: isShown ? 'developer' : 'system', content: text };
    case 'user':
      return { role: 'user', content: text };
    case 'tool':
      return { role: 'tool', content: text, tool_call_id: message.tool_call_id };
    case 'assistant': {
      // null is what other engines answer where there was only reasoning; a template gets it as ''.
      if (message.content === undefined && !message.tool_calls && !message.reasoning_content) {
        const param = `messages[${index}].content`;
        const reason = `Missing required parameter: '${param}'.`;
        throw new ApiError('missing_required_parameter', reason, { param });
      }
      return {
        role: 'assistant',
        content: text,
        ...(message.tool_calls && { tool_calls: message.tool_calls }),
        ...(message.reasoning_content && { reasoning_content: message.reasoning_content }),
      };
    }
  }
}

/** Templates write a function out whole; those that say less than all of it are none the worse. */
function toTemplateTool({ type, function: described }: Tool): object {
  const { description, parameters } = described;
  return {
    type,
    function: {
      ...described,
      description: description ?? '',
      parameters: parameters ?? { type: 'object', properties: {} },
    },
  };
}

/** Parts of text are lines of one text, as in vLLM. */
function messageText(content: Message['content']): string | null {
  if (content === undefined || content === null) return null;
  return typeof content === 'string' ? content : content.map((part) => part.text).join('\n');
}

function render(model: PromptModel, chat: ChatRequest) {
  try {
    return refuseTooLong(model, 'messages', () =>
      model.chatFormat.render(chat, { tokensMax: promptTokensMax(model) }),
    );
  } catch (error) {
    // Tools nested a hundred thousand deep exhaust the stack; that is the request's fault too.
    if (!(error instanceof InvalidPromptError || error instanceof RangeError)) throw error;
    throw new ApiError('invalid_value', `Invalid 'messages': ${error.message}`, {
      param: 'messages',
    });
  }
}
