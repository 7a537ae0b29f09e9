/** The programs of this folder, and what each client calls the same things. */
import { expect } from 'vitest';

export interface Program {
  readonly name: string;
  readonly file: string;
  readonly provider?: string;
  /** The client's words for the ends of an answer; agents do not report them. */
  readonly finish: Finish | null;
  readonly errors: Readonly<Record<string, unknown>>;
  readonly showsReasoning: boolean;
}

interface Finish {
  readonly stop: string;
  readonly length: string;
  readonly call: string;
  /** null where the protocol has no stop strings. */
  readonly stopText: string | null;
}

const openAiFinish = { stop: 'stop', length: 'length', call: 'tool_calls', stopText: 'stop' };
const responsesFinish = {
  stop: 'completed',
  length: 'incomplete',
  call: 'completed',
  stopText: null,
};
const vercelFinish = { ...openAiFinish, call: 'tool-calls' };
const anthropicFinish = {
  stop: 'end_turn',
  length: 'max_tokens',
  call: 'tool_use',
  stopText: 'stop_sequence',
};
const vercelErrors = {
  key: ['AI_APICallError', 401, 'Incorrect API key provided.'],
  model: ['AI_APICallError', 404, expect.stringMatching(/^The model 'gpt-nobody' does not exist/)],
  overflow: ['AI_APICallError', 400, expect.stringMatching(/ 163840/)],
};
const vercel = { file: 'ai.ts', finish: vercelFinish, errors: vercelErrors, showsReasoning: true };
const langchainErrors = {
  key: ['Error', 401, 'MODEL_AUTHENTICATION'],
  model: ['Error', 404, 'MODEL_NOT_FOUND'],
  overflow: ['ContextOverflowError', null, null],
};
const openAiErrors = {
  model: ['NotFoundError', 404, 'model_not_found'],
  overflow: ['BadRequestError', 400, 'context_length_exceeded'],
};

export const programs: readonly Program[] = [
  {
    name: 'openai',
    file: 'openai.ts',
    finish: openAiFinish,
    errors: {
      ...openAiErrors,
      key: ['AuthenticationError', 401, 'invalid_api_key'],
      value: ['UnprocessableEntityError', 422, 'invalid_value'],
    },
    showsReasoning: true,
  },
  {
    name: 'openai responses',
    file: 'openai-responses.ts',
    finish: responsesFinish,
    errors: { ...openAiErrors, key: ['AuthenticationError', 401, 'invalid_api_key'] },
    showsReasoning: true,
  },
  {
    ...vercel,
    name: 'ai with openai responses',
    provider: 'openai-responses',
    finish: { ...vercelFinish, stopText: null },
  },
  // It reads no field of reasoning in chat mode.
  { ...vercel, name: 'ai with openai', provider: 'openai', showsReasoning: false },
  { ...vercel, name: 'ai with openai-compatible', provider: 'openai-compatible' },
  { ...vercel, name: 'ai with deepseek', provider: 'deepseek' },
  { ...vercel, name: 'ai with anthropic', provider: 'anthropic' },
  {
    name: '@anthropic-ai/sdk',
    file: 'anthropic.ts',
    finish: anthropicFinish,
    errors: {
      key: ['AuthenticationError', 401, 'authentication_error'],
      model: ['NotFoundError', 404, 'not_found_error'],
      overflow: ['BadRequestError', 400, 'invalid_request_error'],
    },
    showsReasoning: true,
  },
  {
    name: '@langchain/openai',
    file: 'langchain.ts',
    provider: 'openai',
    finish: openAiFinish,
    errors: langchainErrors,
    showsReasoning: false,
  },
  {
    name: '@langchain/openai responses',
    file: 'langchain.ts',
    provider: 'openai-responses',
    finish: responsesFinish,
    errors: langchainErrors,
    showsReasoning: true,
  },
  {
    name: '@langchain/anthropic',
    file: 'langchain.ts',
    provider: 'anthropic',
    finish: anthropicFinish,
    errors: { ...langchainErrors, overflow: ['ContextOverflowError', null, 'CONTEXT_OVERFLOW'] },
    showsReasoning: true,
  },
  {
    name: '@openai/agents responses',
    file: 'openai-agents.ts',
    provider: 'responses',
    finish: null,
    errors: openAiErrors,
    showsReasoning: true,
  },
  {
    name: '@openai/agents',
    file: 'openai-agents.ts',
    provider: 'chat',
    finish: null,
    errors: openAiErrors,
    showsReasoning: true,
  },
];
