/** Reads the requests of `/v1/responses` and turns them into the worker's chat requests. */
import type { Tool } from '../../../gpu-worker/protocol/messages.ts';
import type { ResponseFormat } from '../../../gpu-worker/protocol/response-format.ts';
import { ApiError } from '../../errors.ts';
import { parseRequest } from '../../middleware/parse-request.ts';
import { cacheScope } from '../inference-request.ts';
import type { InferenceRequest, ReadContext, StoredNames } from '../inference-request.ts';
import { chatParts, choiceWithoutTools } from '../openai/requests.ts';
import { storedInputBytesMax } from './answer.ts';
import type { AnswerOptions } from './answer.ts';
import { checkCalls, toMessages } from './conversation.ts';
import { echoOf } from './echo.ts';
import { earlierItems, resolveReferences } from './earlier-items.ts';
import { inputTokensRequestSchema, responsesRequestSchema } from './request-schemas.ts';
import type { ResponsesRequest } from './request-schemas.ts';
import type { Item } from './item-schemas.ts';
import { unsupported } from './unsupported.ts';

/** @throws ApiError naming the parameter at fault. */
export function parseResponsesRequest(
  json: unknown,
  context: ReadContext,
): InferenceRequest<AnswerOptions> {
  const request = parseRequest(responsesRequestSchema, json, unsupported);
  if (request.stream_options && !request.stream) {
    throw new ApiError('invalid_value', "'stream_options' is only allowed with 'stream'.", {
      param: 'stream_options',
    });
  }
  return toInference(request, context);
}

/** A response's prompt alone. @throws ApiError naming the parameter at fault. */
export function parseInputTokensRequest(
  json: unknown,
  context: ReadContext,
): InferenceRequest<AnswerOptions> {
  return toInference(parseRequest(inputTokensRequestSchema, json, unsupported), context);
}

function toInference(
  request: ResponsesRequest,
  context: ReadContext,
): InferenceRequest<AnswerOptions> {
  const own = itemsOf(request.input);
  const names = namesOf(request, own);
  const { earlier } = context;
  const input = resolveReferences(own, earlier);
  const all = [...earlierItems(earlier), ...input];
  // A request that names stored items is read for the first time before they are looked up.
  if (names === null || earlier !== null) checkCalls(all);
  const messages = toMessages(request.instructions ?? '', all);
  const { tools, choice } = toolsOf(request);
  const format = toResponseFormat(request.text?.format);
  const effort = request.reasoning?.effort;
  const user = request.user ?? request.safety_identifier;
  const wantsLogprobs = logprobsOf(request);
  return {
    model: request.model,
    stream: request.stream ?? false,
    workerPath: '/v1/chat/completions',
    workerBody: {
      model: request.model,
      messages,
      ...(tools && { tools, ...(choice && { tool_choice: choice }) }),
      ...(tools && request.parallel_tool_calls === false && { parallel_tool_calls: false }),
      ...(request.temperature != null && { temperature: request.temperature }),
      ...(request.top_p != null && { top_p: request.top_p }),
      ...(effort && { reasoning_effort: effort }),
      ...(format && { response_format: format }),
      ...(wantsLogprobs && { logprobs: true, top_logprobs: request.top_logprobs ?? 0 }),
      ...(user && { user }),
    },
    cacheScope: cacheScope({}),
    outputTokensStated: request.max_output_tokens ?? null,
    prompts: 1,
    answersEach: 1,
    promptParts: chatParts({ messages, tools, response_format: format }),
    promptTokens: null,
    suffix: null,
    endsWhole: true,
    ...(names && { storedNames: names }),
    answer: {
      echo: echoOf(request),
      summary: Boolean(request.reasoning?.summary ?? request.reasoning?.generate_summary),
      encryptedReasoning: request.include?.includes('reasoning.encrypted_content') ?? false,
      previousId: request.previous_response_id ?? null,
      storedInput: storedInput(
        request,
        input.map(({ item }) => item),
        context,
      ),
    },
  };
}

function itemsOf(input: ResponsesRequest['input']) {
  const items: readonly Item[] =
    typeof input === 'string' ? [{ type: 'message', role: 'user', content: input }] : input;
  return items.map((item, index) => ({ item, param: `input[${index}]` }));
}

/** Lists the stored responses and items that the request names; null if there are none. */
function namesOf(
  { previous_response_id: previous }: ResponsesRequest,
  own: readonly { readonly item: Item }[],
): StoredNames | null {
  const itemIds = own.flatMap(({ item }) => (item.type === 'item_reference' ? [item.id] : []));
  const previousId = previous ?? null;
  return previousId === null && itemIds.length === 0 ? null : { previousId, itemIds };
}

/** @throws ApiError 422 for input that is too long to be stored. */
function storedInput(
  { store }: ResponsesRequest,
  items: readonly Item[],
  { storesUnasked }: ReadContext,
): string | null {
  if (!(store ?? storesUnasked)) return null;
  const json = JSON.stringify(items);
  if (Buffer.byteLength(json) <= storedInputBytesMax) return json;
  if (store !== true) return null;
  throw new ApiError(
    'invalid_value',
    `'store' is for input of at most ${storedInputBytesMax} bytes; leave it out, or send less.`,
    { param: 'store' },
  );
}

/** Tools outside of `allowed_tools` are not shown to the model, so that none of them is called. */
function toolsOf({ tools: stated, tool_choice: choice }: ResponsesRequest): {
  readonly tools: Tool[] | null;
  readonly choice: object | string | null;
} {
  const tools = (stated ?? []).map(toTool);
  const isObject = typeof choice === 'object' && choice !== null;
  const names = isObject && choice.type === 'allowed_tools' ? choice.tools : null;
  const offered = names
    ? tools.filter((tool) => names.some(({ name }) => name === tool.function.name))
    : tools;
  const unknown = names?.findIndex(({ name }) => !tools.some((t) => t.function.name === name));
  if (unknown !== undefined && unknown !== -1) {
    const param = `tool_choice.tools[${unknown}].name`;
    throw new ApiError('invalid_value', `Invalid '${param}': 'tools' has no such function.`, {
      param,
    });
  }
  const wire = toChoice(choice);
  if (offered.length > 0) return { tools: offered, choice: wire };
  if (wire !== null && wire !== 'auto' && wire !== 'none') throw choiceWithoutTools();
  return { tools: null, choice: null };
}

function toTool(tool: NonNullable<ResponsesRequest['tools']>[number]): Tool {
  const { name, description, parameters, strict } = tool;
  return {
    type: 'function',
    function: {
      name,
      ...(description != null && { description }),
      ...(parameters != null && { parameters }),
      ...(strict != null && { strict }),
    },
  };
}

function toChoice(choice: ResponsesRequest['tool_choice']): object | string | null {
  if (choice === null || choice === undefined || typeof choice === 'string') return choice ?? null;
  if (choice.type === 'allowed_tools') return choice.mode;
  return { type: 'function', function: { name: choice.name } };
}

type Format = NonNullable<ResponsesRequest['text']>['format'];

function toResponseFormat(format: Format): ResponseFormat | null {
  if (!format || format.type === 'text') return null;
  if (format.type === 'json_object') return format;
  const { type, ...schema } = format;
  return { type, json_schema: schema };
}

function logprobsOf({ include, top_logprobs: top }: ResponsesRequest): boolean {
  return Boolean(top) || (include?.includes('message.output_text.logprobs') ?? false);
}
