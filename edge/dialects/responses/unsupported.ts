/**
 * Parameters of OpenAI's Responses API that are refused by name, each with its reason. What is
 * neither in a schema nor here is refused as unknown.
 */
import { unsupported as unsupportedByChat } from '../openai/unsupported.ts';
import type { Reasons } from '../../middleware/parse-request.ts';

const { prompt_cache_breakpoint: cached, moderation, prompt_cache_options } = unsupportedByChat;

export const unsupported: Reasons = {
  ...(moderation && { moderation }),
  ...(prompt_cache_options && { prompt_cache_options }),
  access_programs: 'there are none',
  background_options: 'answers are made while their client waits',
  context_management: 'the conversation is what the client sends, and is never cut',
  conversation: "conversations are not kept; 'previous_response_id' goes on from a stored response",
  image: 'the model reads and writes text only',
  modalities: 'the model reads and writes text only',
  personality: "say it in 'instructions'",
  prompt: 'there are no prompt templates; send the text',
  'reasoning.mode': 'the models know one way of thinking',
  'reasoning.context': 'reasoning of earlier turns is what the chat format keeps of it',
  response_format: "it is 'text.format' here",
  messages: "it is 'input' here",
  max_tokens: "it is 'max_output_tokens' here",
  max_completion_tokens: "it is 'max_output_tokens' here",
  reasoning_effort: "it is 'reasoning.effort' here",
  verbosity: "it is 'text.verbosity' here",
  'input[].content[].prompt_cache_breakpoint': cached ?? 'prefixes are cached automatically',
};
