/**
 * What the edge and a worker say to each other: the OpenAI protocol with DeepSeek's additions, so
 * that vLLM and SGLang can serve in a sift worker's place. Schemas say what is well-formed; what
 * depends on the model (vocabulary, context length, chat format) is checked where it is known.
 * Optional request fields may be null, which means absent, as at OpenAI.
 */
import { z } from 'zod';

/** Output tokens of a request that states no maximum, if the context has room for them. */
export const defaultOutputTokens = 4096;
export const choicesMax = 8;
/** That one worker announces. */
export const servedModelsMax = 64;
export const messagesMax = 8192;
export const promptsMax = 64;
export const stopStringsMax = 16;
export const stopStringCharactersMax = 256;
export const logprobsMax = 20;
/** Log-probabilities that a whole answer may have, alternatives counted; a stream may have more. */
export const wholeLogprobsMax = 2 ** 20;
/** Anthropic's; OpenAI's routes take 64. */
export const toolNameCharactersMax = 128;

/** DeepSeek's and OpenAI's words together. */
export const reasoningEfforts = [
  'none',
  'minimal',
  'low',
  'medium',
  'high',
  'xhigh',
  'max',
  'ultra',
] as const;

/** Ids travel in headers, logs and journals. */
export const requestIdSchema = z.string().regex(/^[A-Za-z0-9._:-]{1,128}$/);

// ---- requests ----------------------------------------------------------------------------------

const tokenId = z.int().min(0);

/** Counts before it looks inside: a body of a million bad elements has one fault, not a million. */
function boundedArray<Element extends z.ZodType>(
  element: Element,
  { min = 0, max }: { min?: number; max: number },
) {
  return z.array(z.unknown()).min(min).max(max).pipe(z.array(element));
}

const stopSchema = z.union([
  z.string().min(1).max(stopStringCharactersMax),
  boundedArray(z.string().min(1).max(stopStringCharactersMax), { max: stopStringsMax }),
]);

const streamOptionsSchema = z.strictObject({
  /** One more event before `[DONE]`, with `choices: []` and the final usage. */
  include_usage: z.boolean().nullish(),
  /** Every event carries the usage so far. */
  continuous_usage_stats: z.boolean().nullish(),
});

/** What walks through a schema, or writes it out, does so level by level on the stack. */
const schemaLevelsMax = 512;

/** A JSON schema, not yet looked into. */
const schemaSchema = z
  .record(z.string(), z.unknown())
  .refine((schema) => !isDeeper(schema, schemaLevelsMax), {
    message: `expected at most ${schemaLevelsMax} levels`,
  });

function isDeeper(value: unknown, levelsMax: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; depth <= levelsMax && level.length > 0; depth++) {
    level = level.flatMap((each) =>
      typeof each === 'object' && each !== null ? Object.values(each) : [],
    );
  }
  return level.length > 0;
}

/**
 * JSON of any object, or of the schema; the answer is held to it token by token. OpenAI's spelling has
 * the schema in `json_schema`; Together's, Fireworks' and llama.cpp's have it beside the type.
 */
export const responseFormatSchema = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('text') }),
    z.strictObject({ type: z.literal('json_object'), schema: schemaSchema.nullish() }),
    z.strictObject({
      type: z.literal('json_schema'),
      json_schema: z
        .strictObject({
          name: z
            .string()
            .regex(/^[A-Za-z0-9_-]{1,64}$/)
            .nullish(),
          description: z.string().nullish(),
          schema: schemaSchema,
          /** Answers are held to the schema in either case, but for what can't be counted. */
          strict: z.boolean().nullish(),
        })
        .nullish(),
      schema: schemaSchema.nullish(),
      name: z.string().max(64).nullish(),
      description: z.string().nullish(),
      strict: z.boolean().nullish(),
    }),
  ])
  .superRefine((format, context) => {
    if (format.type !== 'json_schema') return;
    const { json_schema: nested, schema } = format;
    if (nested && schema) {
      const message = "'json_schema' has the schema already";
      context.addIssue({ code: 'custom', path: ['schema'], message, input: schema });
    } else if (!nested && !schema) {
      context.addIssue({
        code: 'custom',
        path: ['json_schema'],
        message: 'expected an object that holds the schema',
        input: undefined,
      });
    }
  });

/** The schema of an answer and where in the format it stands; null where any answer or object will do. */
export function schemaOfFormat(format: ResponseFormat): {
  readonly schema: Readonly<Record<string, unknown>>;
  readonly path: readonly string[];
  readonly isStrict: boolean;
} | null {
  if (format.type === 'text') return null;
  if (format.type === 'json_schema' && format.json_schema) {
    const { schema, strict } = format.json_schema;
    return { schema, path: ['json_schema', 'schema'], isStrict: strict === true };
  }
  if (!format.schema) return null;
  const isStrict = format.type === 'json_schema' && format.strict === true;
  return { schema: format.schema, path: ['schema'], isStrict };
}

/** OpenAI's seeds are integers of 64 bits. */
const seedMax = 2 ** 63;
/** As many seeds as can be told apart once a choice is added to them. */
const seedsExact = Number.MAX_SAFE_INTEGER - choicesMax;

/**
 * JSON numbers beyond 2^53 arrive rounded to 53 bits, the same ones each time: they are folded into
 * the seeds that a double holds exactly, so that a request with such a seed is reproducible too.
 */
export const seedSchema = z
  .number()
  .refine(Number.isInteger, 'expected an integer')
  .min(-seedMax)
  .max(seedMax)
  .transform((seed) => (Math.abs(seed) <= seedsExact ? seed : seed % seedsExact));

/** Fields that chat completions and completions have in common. */
const generationFields = {
  model: z.string().min(1).max(256),
  n: z.int().min(1).max(choicesMax).nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema.nullish(),
  stop: stopSchema.nullish(),
  stop_token_ids: boundedArray(tokenId, { max: 64 }).nullish(),
  ignore_eos: z.boolean().nullish(),
  /** 0 is greedy. */
  temperature: z.number().min(0).max(2).nullish(),
  /** 0 keeps the likeliest token alone. */
  top_p: z.number().min(0).max(1).nullish(),
  /** 0 and -1 keep all tokens. */
  top_k: z.int().min(-1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  /** Choice i of n uses seed + i. */
  seed: seedSchema.nullish(),
  repetition_penalty: z.number().gt(0).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  /** Token id -> added to its logit. */
  logit_bias: z
    .record(z.string(), z.unknown())
    .refine((bias) => Object.keys(bias).length <= 1024, 'expected at most 1024 tokens')
    .pipe(z.record(z.string().regex(/^\d{1,9}$/), z.number().min(-100).max(100)))
    .nullish(),
  /** vLLM's: logprobs of the prompt's own tokens, with this many alternatives. */
  prompt_logprobs: z.int().min(0).max(logprobsMax).nullish(),
  /** Cached prefixes are shared only between requests of equal salt. */
  cache_salt: z.string().min(1).max(512).nullish(),
  /** A context that is sold shorter than the model's own; the longer of the two has no effect. */
  context_length: z.int().min(1).nullish(),
  /** Requests of one scope share one turn in the order of work; without it those of equal salt do. */
  fair_scope: z.string().min(1).max(512).nullish(),
  /** The operator's end user; written to the request log. */
  user: z.string().max(512).nullish(),
  response_format: responseFormatSchema.nullish(),
};

const textOnly = 'the model reads and writes text only';
const textPartSchema = z.strictObject({ type: z.literal('text', textOnly), text: z.string() });
const contentSchema = z.union([z.string(), boundedArray(textPartSchema, { min: 1, max: 1024 })]);

/** Of a tool that is called or has to be; one of a history may have been another provider's. */
const calledNameSchema = z.string().min(1).max(toolNameCharactersMax);

const toolCallFieldsSchema = z.strictObject({
  id: z.string().min(1).max(256),
  type: z.literal('function').nullish(),
  /** Streamed calls have one, and programs that collect them keep it. */
  index: z.int().min(0).nullish(),
  function: z
    .strictObject({
      name: calledNameSchema,
      /** Some engines answer with an object in place of its text. */
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]),
      /** OpenAI's client adds it to the answers that it parses; the model is shown the text. */
      parsed_arguments: z.unknown().optional(),
    })
    .transform(({ parsed_arguments: _parsed, name, arguments: said }) => ({
      name,
      arguments: typeof said === 'string' ? said : JSON.stringify(said),
    })),
});
export const toolCallSchema = toolCallFieldsSchema.transform(({ id, function: called }) => ({
  id,
  type: 'function' as const,
  function: called,
}));

/** Of a participant. The chat formats have no names, so the model is not shown it. */
const nameSchema = z.string().max(256).nullish();

const assistantFieldsSchema = z.strictObject({
  role: z.literal('assistant'),
  name: nameSchema,
  content: contentSchema.nullish(),
  /** Reasoning of earlier turns is dropped by the chat format; with `prefix` it is continued. */
  reasoning_content: z.string().nullish(),
  /** The name that vLLM and others have for it. */
  reasoning: z.string().nullish(),
  /** What gateways add beside it; it says the same in parts. */
  reasoning_details: z.array(z.unknown()).nullish(),
  /** DeepSeek's chat prefix completion: the answer goes on from this, the last, message. */
  prefix: z.boolean().nullish(),
  /** An empty list is that of a message without calls, as vLLM writes it. */
  tool_calls: boundedArray(toolCallSchema, { max: 128 }).nullish(),
  /** Present in OpenAI's own answers, which clients send back as history. */
  refusal: z.string().nullish(),
  audio: z.null(textOnly).optional(),
  function_call: z.null('it was replaced by tool_calls').optional(),
  annotations: z.array(z.unknown()).max(0, 'the model does not annotate').nullish(),
  /** OpenAI's client adds it to the answers that it parses; the model is shown the text. */
  parsed: z.unknown().optional(),
});
const assistantMessageSchema = assistantFieldsSchema.transform(
  ({ parsed: _parsed, reasoning_details: _details, reasoning, tool_calls: calls, ...message }) => ({
    ...message,
    // A refusal is told where the content would be.
    ...(message.refusal != null && { content: message.content ?? message.refusal, refusal: null }),
    ...(reasoning != null && { reasoning_content: message.reasoning_content ?? reasoning }),
    ...((calls === null || (calls && calls.length > 0)) && { tool_calls: calls }),
  }),
);

export const messageSchema = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), name: nameSchema, content: contentSchema }),
  /** OpenAI's newer name of the system role. */
  z.strictObject({ role: z.literal('developer'), name: nameSchema, content: contentSchema }),
  z.strictObject({ role: z.literal('user'), name: nameSchema, content: contentSchema }),
  assistantMessageSchema,
  z.strictObject({
    role: z.literal('tool'),
    name: nameSchema,
    content: contentSchema,
    tool_call_id: z.string().min(1).max(256),
  }),
]);

export const toolSchema = z.strictObject({
  type: z.literal('function'),
  function: z.strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9_-]+$/)
      .max(toolNameCharactersMax),
    description: z.string().nullish(),
    parameters: schemaSchema.nullish(),
    /** Whether the arguments of every call are held to the parameters' schema. */
    strict: z.boolean().nullish(),
  }),
});

const toolChoiceSchema = z.union([
  z.enum(['none', 'auto', 'required']),
  z.strictObject({
    type: z.literal('function'),
    function: z.strictObject({ name: calledNameSchema }),
  }),
]);

export const chatCompletionRequestSchema = z.strictObject({
  ...generationFields,
  messages: boundedArray(messageSchema, { min: 1, max: messagesMax }),
  max_tokens: z.int().min(1).nullish(),
  /** OpenAI's newer name of `max_tokens`. */
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(logprobsMax).nullish(),
  /** Off unless asked for; `adaptive`: on where the model has a thinking mode. */
  thinking: z.strictObject({ type: z.enum(['enabled', 'adaptive', 'disabled']) }).nullish(),
  /**
   * Turns thinking on, and `none` off, unless `thinking` or `chat_template_kwargs` says; the models know
   * one depth of it.
   */
  reasoning_effort: z.enum(reasoningEfforts).nullish(),
  chat_template_kwargs: z.strictObject({ thinking: z.boolean().nullish() }).nullish(),
  /** An empty list is none. */
  tools: boundedArray(toolSchema, { max: 128 }).nullish(),
  /** A function that has to be called is called after any reasoning. */
  tool_choice: toolChoiceSchema.nullish(),
  /** `false`: at most one call. */
  parallel_tool_calls: z.boolean().nullish(),
});

/**
 * `POST /tokenize`, vLLM's route, for conversations: the prompt that a chat completion of these fields
 * would have.
 */
export const tokenizeRequestSchema = chatCompletionRequestSchema
  .pick({
    model: true,
    messages: true,
    thinking: true,
    chat_template_kwargs: true,
    reasoning_effort: true,
    tools: true,
    tool_choice: true,
  })
  .extend({
    /** vLLM's; they say what the last message's `prefix` says. */
    add_generation_prompt: z.boolean().nullish(),
    continue_final_message: z.boolean().nullish(),
  });

export type Prompt = string | string[] | number[] | number[][];

/** A union by hand: what the first element is says what the others have to be. */
const promptSchema = z.custom<Prompt>().superRefine((prompt: unknown, context) => {
  const fault = promptFault(prompt);
  if (fault) context.addIssue({ code: 'custom', input: prompt, ...fault });
});

function promptFault(prompt: unknown): { message: string; path: number[] } | null {
  if (typeof prompt === 'string') return null;
  if (!Array.isArray(prompt) || prompt.length === 0) {
    return { message: 'expected text or token ids, one prompt or several', path: [] };
  }
  if (typeof prompt[0] === 'number') return tokenFault(prompt);
  if (prompt.length > promptsMax) {
    return { message: `expected at most ${promptsMax} prompts`, path: [] };
  }
  const kind = typeof prompt[0] === 'string' ? 'text' : 'tokens';
  for (const [index, each] of prompt.entries()) {
    if (kind === 'text' && typeof each !== 'string') {
      return { message: 'expected a string', path: [index] };
    }
    if (kind === 'text') continue;
    if (!Array.isArray(each) || each.length === 0) {
      return { message: 'expected text or a list of token ids', path: [index] };
    }
    const fault = tokenFault(each);
    if (fault) return { ...fault, path: [index, ...fault.path] };
  }
  return null;
}

function tokenFault(tokens: readonly unknown[]): { message: string; path: number[] } | null {
  const index = tokens.findIndex((token) => !Number.isSafeInteger(token) || Number(token) < 0);
  return index === -1 ? null : { message: 'expected a token id', path: [index] };
}

export const completionRequestSchema = z.strictObject({
  ...generationFields,
  prompt: promptSchema,
  /** 0 computes the prompt alone: useful with `echo` and `logprobs`. */
  max_tokens: z.int().min(0).nullish(),
  echo: z.boolean().nullish(),
  /** Text after the gap that the answer fills; needs a tokenizer with fill-in-the-middle tokens. */
  suffix: z.string().nullish(),
  logprobs: z.int().min(0).max(logprobsMax).nullish(),
});

export type ChatCompletionRequest = z.infer<typeof chatCompletionRequestSchema>;
export type CompletionRequest = z.infer<typeof completionRequestSchema>;
export type TokenizeRequest = z.infer<typeof tokenizeRequestSchema>;
export type Message = z.infer<typeof messageSchema>;
export type ResponseFormat = z.infer<typeof responseFormatSchema>;
export type Tool = z.infer<typeof toolSchema>;
export type ToolCall = z.infer<typeof toolCallSchema>;

// ---- usage -------------------------------------------------------------------------------------

/**
 * No request has so many tokens. The bound keeps sums of false counts, and what they would cost at the
 * dearest price, exact.
 */
export const tokenCountMax = 2 ** 31 - 1;
const tokenCount = z.int().min(0).max(tokenCountMax);

/**
 * Cached tokens are billed in whole blocks of so many, whichever worker answered: sift's own block and
 * DeepSeek's unit. Other engines cache in smaller ones.
 */
export const billedBlockTokens = 64;

/** As a sift worker reports it. `prompt_tokens` is the whole prompt: hits and misses. */
export const usageSchema = z.object({
  prompt_tokens: tokenCount,
  completion_tokens: tokenCount,
  total_tokens: tokenCount,
  prompt_tokens_details: z.object({ cached_tokens: tokenCount }),
  completion_tokens_details: z.object({ reasoning_tokens: tokenCount }),
  prompt_cache_hit_tokens: tokenCount,
  prompt_cache_miss_tokens: tokenCount,
});
export type Usage = z.infer<typeof usageSchema>;

/**
 * `GET /v1/requests/{id}/usage`; 404 for an id that was never seen. `interrupted`: the worker died;
 * usage is the last checkpoint's. `POST /v1/requests/{id}/cancel` answers the same and stops the
 * request; an id that was never seen is answered as `aborted` with nothing used, and refused from
 * then on.
 */
export const usageRecordSchema = z.object({
  object: z.literal('request.usage'),
  id: z.string(),
  model: z.string(),
  status: z.enum(['running', 'done', 'aborted', 'failed', 'interrupted']),
  /** Unix seconds. */
  created: z.int(),
  /** Unix seconds of the counts. */
  updated: z.int(),
  usage: usageSchema,
});
/** Ten counts and a few words. */
export const usageRecordBytesMax = 16 * 1024;
export type UsageRecord = z.infer<typeof usageRecordSchema>;

// ---- responses ---------------------------------------------------------------------------------

export type WireFinishReason = 'stop' | 'length' | 'tool_calls';

export interface ChatLogprob {
  /** The token's text; a token that is not UTF-8 by itself is written as `\xe2\x82`. */
  readonly token: string;
  /** Exact, unlike `token`. */
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export interface ChatTokenLogprob extends ChatLogprob {
  readonly top_logprobs: readonly ChatLogprob[];
}

export interface ChatLogprobs {
  readonly content: readonly ChatTokenLogprob[] | null;
  readonly reasoning_content?: readonly ChatTokenLogprob[];
}

/** vLLM's: per prompt token a map from token id to its logprob; null for the first token. */
export type PromptLogprobs = readonly (Readonly<
  Record<string, { logprob: number; rank: number | null; decoded_token: string }>
> | null)[];

/** OpenAI's older shape: parallel arrays; offsets count the Unicode characters of the choice's text. */
export interface CompletionLogprobs {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  readonly text_offset: readonly number[];
}

interface ResponseHead<Kind extends string> {
  readonly id: string;
  readonly object: Kind;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  /** Changes when the model or the backend does. */
  readonly system_fingerprint: string;
}

export interface ChatChoice {
  readonly index: number;
  readonly message: {
    readonly role: 'assistant';
    readonly content: string | null;
    readonly reasoning_content?: string;
    readonly tool_calls?: readonly ToolCall[];
  };
  readonly logprobs: ChatLogprobs | null;
  readonly finish_reason: WireFinishReason;
  /** vLLM's: the request's own stop string or token that matched; null if none did. */
  readonly stop_reason: string | number | null;
}

export interface ChatCompletion extends ResponseHead<'chat.completion'> {
  readonly choices: readonly ChatChoice[];
  readonly usage: Usage;
  readonly prompt_logprobs?: PromptLogprobs;
}

/** The first delta of a call has its id, type and name; arguments come in pieces. */
export interface ToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'function';
  readonly function: { readonly name?: string; readonly arguments: string };
}

export interface ChatDelta {
  readonly role?: 'assistant';
  readonly content?: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly ToolCallDelta[];
}

export interface ChatCompletionChunk extends ResponseHead<'chat.completion.chunk'> {
  readonly choices: readonly {
    readonly index: number;
    readonly delta: ChatDelta;
    readonly logprobs: ChatLogprobs | null;
    readonly finish_reason: WireFinishReason | null;
    /** Beside a finish reason. */
    readonly stop_reason?: string | number | null;
  }[];
  /** Absent unless usage was asked for; null in all events but the last without running usage. */
  readonly usage?: Usage | null;
}

export interface CompletionChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  readonly finish_reason: WireFinishReason | null;
  /** Beside a finish reason: the request's own stop string or token that matched; null if none did. */
  readonly stop_reason?: string | number | null;
  readonly prompt_logprobs?: PromptLogprobs;
}

/** Also the shape of a streamed event, which has `usage` only if it was asked for. */
export interface Completion extends ResponseHead<'text_completion'> {
  readonly choices: readonly CompletionChoice[];
  readonly usage?: Usage | null;
}

/** Answer of `POST /tokenize`. */
export const tokenizeResponseSchema = z.looseObject({
  count: tokenCount,
  /** The context length. */
  max_model_len: z.int(),
  tokens: z.array(tokenId),
});
export type TokenizeResponse = z.infer<typeof tokenizeResponseSchema>;

/** By how much a request exceeds the context. */
export const overflowSchema = z.object({
  /** Of a text that is refused before all of it is tokenised, the tokens counted so far. */
  prompt_tokens: tokenCount,
  /** What the request asks for; null if the prompt alone is too long or it states no maximum. */
  output_tokens: tokenCount.nullable(),
  context_tokens: tokenCount,
});

export const errorBodySchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    /** The parameter at fault, such as `messages[0].role`. */
    param: z.string().nullable(),
    code: z.string().nullable(),
    /** Beside the code `context_length_exceeded`. */
    overflow: overflowSchema.optional(),
  }),
});
export type ErrorBody = z.infer<typeof errorBodySchema>;

/** Of any engine: some leave out all but the names. */
export const modelListSchema = z.looseObject({
  data: z.array(
    z.looseObject({
      id: z.string(),
      /** vLLM's name of the context length, in tokens. */
      max_model_len: z.int().nullish(),
    }),
  ),
});
export type ModelList = z.infer<typeof modelListSchema>;

// ---- health and heartbeats ---------------------------------------------------------------------

export const loadSchema = z.object({
  running_sequences: tokenCount,
  waiting_sequences: tokenCount,
  /** Tokens still to be computed for the requests in flight. */
  tokens_in_flight: tokenCount,
  blocks_total: tokenCount,
  blocks_free: tokenCount,
  blocks_cached: tokenCount,
});
export type Load = z.infer<typeof loadSchema>;

/** Answered with 200 when ready and 503 otherwise. */
export const healthSchema = z.object({
  status: z.enum(['starting', 'ready', 'draining', 'failed']),
  /** Why it is not ready; null when it is. */
  reason: z.string().nullable(),
  models: z.array(z.string()),
  load: loadSchema.nullable(),
  /** What its operator should see to before it stops the worker; absent where there is nothing. */
  warnings: z.array(z.string()).optional(),
});
export type Health = z.infer<typeof healthSchema>;

/** `POST <edge>/internal/workers/heartbeat`, every 5 s. */
export const heartbeatSchema = z.strictObject({
  id: z.string().min(1).max(128),
  /** Where the edge reaches the worker. */
  url: z.string().min(1).max(2_000),
  /** Larger at each start of a worker that keeps its data folder; a larger one is younger. */
  epoch: z.int().min(0),
  /** Random at each start, so that no two starts are taken for one. KV of another start is gone. */
  start: z.string().min(8).max(64).optional(),
  engine: z.string().min(1).max(64),
  state: z.enum(['starting', 'ready', 'draining', 'failed']),
  models: z
    .array(
      z.strictObject({
        id: z.string().min(1).max(256),
        revision: z.string().min(1).max(128),
        tokenizer: z.string().min(1).max(128),
        /** Tokens of a KV block; cached tokens are a multiple. */
        block_tokens: z.int().min(1),
        context_length: z.int().min(1),
      }),
    )
    .max(servedModelsMax),
  /** Null until the engine is ready. */
  capacity: z
    .strictObject({
      sequences: tokenCount,
      waiting: tokenCount,
      step_tokens: tokenCount,
      cache_tokens: tokenCount,
    })
    .nullable(),
  load: loadSchema.nullable(),
});
export type Heartbeat = z.infer<typeof heartbeatSchema>;
