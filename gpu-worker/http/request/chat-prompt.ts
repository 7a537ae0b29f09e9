/** A conversation as prompt tokens, through the model's own chat template. */
import type { ChatMessage } from '../../tokenizer/chat-template.ts';
import { InvalidPromptError } from '../../tokenizer/content-marks.ts';
import type { Message, Tool } from '../../protocol/messages.ts';
import type { TokenizeRequest } from '../../protocol/requests.ts';
import { ApiError } from '../api-error.ts';
import { promptTokensMax, refuseTooLong } from './engine-request.ts';
import type { PromptModel } from '../text/text-model.ts';
import { toolTokens } from '../response/tool-calls.ts';

export interface ChatPrompt {
  /** The prompt as the template wrote it. */
  readonly text: string;
  readonly tokens: Int32Array;
  /** Output up to this token is reasoning; null when the answer starts at once. */
  readonly reasoningEndToken: number | null;
  /** The functions that the output may call, as they were sent. */
  readonly tools: readonly Tool[];
}

/** @throws ApiError 400 naming the parameter. */
export function renderChat(model: PromptModel, body: TokenizeRequest): ChatPrompt {
  const thinking = wantsThinking(body);
  const goesOn = continuesLast(body.messages);
  const tools = offeredTools(model, body);
  const messages = body.messages.map(toTemplateMessage);
  const rendered = render(model, {
    messages,
    tools: tools.map(toTemplateTool),
    thinking: thinking.wanted,
    ending: goesOn ? ('continue-final' as const) : ('generation-prompt' as const),
  });
  // A thinking model may go on without reasoning after a tool's result or in a continued message.
  const lastTurn = body.messages.findLast(({ role }) => role !== 'system' && role !== 'developer');
  const isAnswer = lastTurn?.role === 'user';
  if (thinking.wanted && isAnswer && !rendered.insideReasoning && !thinking.adapts) {
    throw unsupported(thinking.param, 'the model has no thinking mode');
  }
  const { reasoningEndToken } = model.chatTemplate;
  return {
    text: rendered.text,
    tokens: rendered.tokens,
    reasoningEndToken: rendered.insideReasoning ? reasoningEndToken : null,
    tools,
  };
}

/** The tools that the model is told of. @throws ApiError 400 for what can't be kept. */
function offeredTools(model: PromptModel, body: TokenizeRequest): readonly Tool[] {
  const { tools, tool_choice: choice } = body;
  if (!tools || tools.length === 0) {
    if (choice && choice !== 'none' && choice !== 'auto') {
      throw new ApiError('invalid_value', "'tool_choice' asks for a call and 'tools' are none.", {
        param: 'tool_choice',
      });
    }
    return [];
  }
  if (toolTokens.some((text) => model.tokenizer.controlToken(text) === null)) {
    throw unsupported('tools', 'the model calls no tools');
  }
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

/**
 * DeepSeek's way to say it and vLLM's; off unless asked for. An effort asks for it where neither
 * decides: the models reason or do not, at one depth.
 * @throws ApiError 400
 */
function wantsThinking(body: TokenizeRequest) {
  const byType = body.thinking ? body.thinking.type !== 'disabled' : null;
  const adapts = body.thinking?.type === 'adaptive';
  const byTemplate = body.chat_template_kwargs?.thinking ?? null;
  if (byType !== null && byTemplate !== null && byType !== byTemplate) {
    throw new ApiError('invalid_value', "'thinking' contradicts 'chat_template_kwargs'.", {
      param: 'thinking',
    });
  }
  if (byType !== null) return { wanted: byType, adapts, param: 'thinking' };
  const param = byTemplate === null ? 'reasoning_effort' : 'chat_template_kwargs.thinking';
  const byEffort = (body.reasoning_effort ?? 'none') !== 'none';
  return { wanted: byTemplate ?? byEffort, adapts, param };
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
function toTemplateMessage(message: Message, index: number): ChatMessage {
  const text = messageText(message.content);
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'system', content: text };
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

function render(model: PromptModel, chat: Parameters<PromptModel['chatTemplate']['render']>[0]) {
  try {
    return refuseTooLong(model, 'messages', () =>
      model.chatTemplate.render(chat, { tokensMax: promptTokensMax(model) }),
    );
  } catch (error) {
    // Tools nested a hundred thousand deep exhaust the stack; that is the request's fault too.
    if (!(error instanceof InvalidPromptError || error instanceof RangeError)) throw error;
    throw new ApiError('invalid_value', `Invalid 'messages': ${error.message}`, {
      param: 'messages',
    });
  }
}
