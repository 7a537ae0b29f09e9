/** Renders messages through the checkpoint's own chat template, and encodes the result. */
import vm from 'node:vm';
import { Template } from '@huggingface/jinja';
import { z } from 'zod';
import { chooseMarks, createMarker, InvalidPromptError } from './content-marks.ts';
import type { Marks } from './content-marks.ts';
import type { EncodeOptions, PromptPart, Tokenizer } from './tokenizer.ts';
import { parseFile, TokenizerError, tokenText } from './tokenizer-files.ts';

/** A template is the checkpoint's program: it gets this long for one prompt. */
const renderMsMax = 5_000;

const reasoningStart = '<think>';
const reasoningEnd = '</think>';

export interface ChatMessage {
  readonly role: string;
  readonly content?: string | null | undefined;
  /** Whatever else the template reads: tool_calls, tool_call_id, name, reasoning_content. */
  readonly [key: string]: unknown;
}

export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  /** The functions as OpenAI describes them; none if empty or absent. */
  readonly tools?: readonly unknown[];
  /** True if the answer shall begin with reasoning, in models that know both; off unless told. */
  readonly thinking?: boolean;
  /** The schema that the answer is held to, for formats that tell the model of it. */
  readonly answerSchema?: unknown;
  /** Further variables of the template. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /**
   * The end of the prompt: the head of a new answer (unless told), nothing, or the last message, an
   * assistant's, left open so that the answer goes on from its content.
   */
  readonly promptEnd?: 'generation-prompt' | 'none' | 'continue-final';
}

export interface RenderedChat {
  /** The text that the template rendered. */
  readonly text: string;
  /** Control tokens only where the template wrote them; a begin token only if it wrote that. */
  readonly tokens: Int32Array;
  /** True if the answer begins inside the model's reasoning. */
  readonly insideReasoning: boolean;
}

export interface ChatTemplate {
  /** Throws an InvalidPromptError with the template's own words if it refuses the messages. */
  render(request: ChatRequest, options?: Pick<EncodeOptions, 'tokensMax'>): RenderedChat;
  /** The token that ends reasoning, or null for a tokenizer without one. */
  readonly reasoningEndToken: number | null;
}

const configSchema = z.object({
  bos_token: tokenText,
  eos_token: tokenText,
  pad_token: tokenText,
  unk_token: tokenText,
  chat_template: z
    .union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))])
    .nullish(),
});

type Config = z.infer<typeof configSchema>;

/**
 * Throws a TokenizerError if a template is malformed. A checkpoint without one can still complete
 * text; its `render` throws an InvalidPromptError that says so.
 */
export function createChatTemplate(tokenizerConfig: unknown, tokenizer: Tokenizer): ChatTemplate {
  const config = parseFile('tokenizer_config.json', configSchema, tokenizerConfig);
  const templates = compileTemplates(config);
  const bounded = createBounded();
  const marker = createMarker([...tokenizer.controlTokens.keys()]);
  /** The text of empty contents by template, once a conversation asks for it. */
  const emptyContents = new Map<Template, null | ''>();
  const besideCalls = (template: Template): null | '' => {
    const known = emptyContents.get(template);
    const content = known === undefined ? emptyBesideCalls(template, bounded) : known;
    emptyContents.set(template, content);
    return content;
  };

  return {
    reasoningEndToken: tokenizer.controlToken(reasoningEnd),
    render(request, options) {
      const withTools = request.tools !== undefined && request.tools.length > 0;
      const template =
        (withTools ? templates.get('tool_use') : undefined) ?? templates.get('default');
      if (template === undefined) {
        throw new InvalidPromptError('the model has no chat template: it completes text only');
      }
      const given = withEmptyContents(request, () => besideCalls(template));
      const marks = chooseMarks([given, request.tools ?? []]);
      const messages = given.map((message) => marker.mark(message, marks));
      if (request.promptEnd === 'continue-final') openFinal(given, messages, marks);
      const thinking = request.thinking ?? false;
      const variables = {
        ...request.variables,
        ...specialTokens(config),
        messages,
        ...(withTools ? { tools: marker.mark(request.tools, marks) } : {}),
        add_generation_prompt: (request.promptEnd ?? 'generation-prompt') === 'generation-prompt',
        // The name in DeepSeek's templates, and the one in others.
        thinking,
        enable_thinking: thinking,
      };
      const rendered = bounded(() => template.render(variables));
      const kept = request.promptEnd === 'continue-final' ? cutFinal(rendered, marks) : rendered;
      const parts = marker.split(kept, marks);
      return {
        text: parts.map((part) => (part.kind === 'text' ? part.text : part.content)).join(''),
        tokens: tokenizer.encodeParts(parts, options),
        insideReasoning: endsInReasoning(parts),
      };
    },
  };
}

/** All of the checkpoint's templates, one after the other; empty where it has none. */
export function templateText(tokenizerConfig: unknown): string {
  const { chat_template: template } = parseFile(
    'tokenizer_config.json',
    configSchema,
    tokenizerConfig,
  );
  if (template === null || template === undefined) return '';
  if (typeof template === 'string') return template;
  return template.map((named) => named.template).join('\n');
}

/**
 * The messages, with the content that a template takes where there is none: an empty text, but
 * beside tool calls what `besideCalls` says. The last message of a continued conversation stays as
 * it is.
 */
function withEmptyContents(
  { messages, promptEnd }: ChatRequest,
  besideCalls: () => null | '',
): readonly ChatMessage[] {
  return messages.map((message, index) => {
    const { content, tool_calls: calls } = message;
    const isContinued = promptEnd === 'continue-final' && index === messages.length - 1;
    if (isContinued || (content !== undefined && content !== null && content !== ''))
      return message;
    const calling = message.role === 'assistant' && Array.isArray(calls) && calls.length > 0;
    return { ...message, content: calling ? besideCalls() : '' };
  });
}

/**
 * The content of an assistant's message that is calls of tools alone. Some templates
 * (DeepSeek-V3's) show the calls only where the content is null, others fail on null.
 */
function emptyBesideCalls(
  template: Template,
  bounded: (render: () => string) => string,
): null | '' {
  const call = { id: 'call', type: 'function', function: { name: 'f', arguments: '{}' } };
  const messages = [
    { role: 'user', content: 'a' },
    { role: 'assistant', content: null, tool_calls: [call] },
  ];
  try {
    bounded(() => template.render({ messages, add_generation_prompt: false }));
    return null;
  } catch {
    return '';
  }
}

/** Ends the content of the last message with the mark at which the prompt is cut. */
function openFinal(messages: readonly ChatMessage[], marked: unknown[], marks: Marks): void {
  const final = messages.at(-1);
  const markedFinal = marked.at(-1);
  const isOpen = final?.role === 'assistant' && typeof final.content === 'string';
  if (!isOpen || typeof markedFinal !== 'object' || markedFinal === null) {
    throw new InvalidPromptError('only an assistant message with text as content can be continued');
  }
  const content = 'content' in markedFinal ? String(markedFinal.content) : '';
  // DeepSeek's templates ask for `prefix` to render such a message like an answer in progress.
  marked[marked.length - 1] = { ...markedFinal, content: content + marks.end, prefix: true };
}

function cutFinal(rendered: string, marks: Marks): string {
  const at = rendered.lastIndexOf(marks.end);
  if (at < 0) throw new InvalidPromptError('the chat template leaves out the message to continue');
  return rendered.slice(0, at);
}

/** Tells whether the template opened the model's reasoning last and did not close it. */
function endsInReasoning(parts: readonly PromptPart[]): boolean {
  const last = parts.findLast(
    (part) =>
      part.kind === 'control' && (part.content === reasoningStart || part.content === reasoningEnd),
  );
  return last?.kind === 'control' && last.content === reasoningStart;
}

/**
 * Runs a rendering for `renderMsMax` at most, which no limit inside the template's language could
 * do.
 */
function createBounded(): (render: () => string) => string {
  const globals = { render: () => '' };
  const context = vm.createContext(globals);
  const script = new vm.Script('render()');
  return (render) => {
    globals.render = render;
    try {
      // The limit holds for whatever runs inside the script, the function that it calls included.
      return String(script.runInContext(context, { timeout: renderMsMax }));
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InvalidPromptError(`the chat template refuses the messages: ${reason}`, { cause });
    } finally {
      globals.render = () => '';
    }
  };
}

function specialTokens(config: Config): Record<string, string> {
  return Object.fromEntries(
    (['bos_token', 'eos_token', 'pad_token', 'unk_token'] as const).map((key) => [
      key,
      config[key] ?? '',
    ]),
  );
}

function compileTemplates({ chat_template: template }: Config): Map<string, Template> {
  if (template === null || template === undefined) return new Map();
  const named = typeof template === 'string' ? [{ name: 'default', template }] : template;
  try {
    return new Map(named.map(({ name, template: source }) => [name, new Template(source)]));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TokenizerError(`tokenizer_config.json: chat_template: ${reason}`, { cause });
  }
}
