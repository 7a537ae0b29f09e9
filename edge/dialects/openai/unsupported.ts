/**
 * Parameters of OpenAI's and DeepSeek's documentation that are refused by name, each with its
 * reason. Nothing that a client asks for is ignored silently: what is neither in a schema nor here
 * is refused as unknown.
 */
import { unsupportedByAll } from '../../../gpu-worker/protocol/unsupported.ts';
import type { Reasons } from '../../middleware/parse-request.ts';

export const unsupported: Reasons = {
  ...unsupportedByAll,
  moderation: 'answers are not moderated',
  priority: 'all requests have the same priority',
  prompt_cache_breakpoint: 'prefixes are cached automatically',
  prompt_cache_options: 'prefixes are cached automatically',
  web_search_options: 'the model does not search the web',
  'messages[].content[].image_url': 'the model reads and writes text only',
  'messages[].content[].input_audio': 'the model reads and writes text only',
  'messages[].content[].file': 'the model reads and writes text only',
  'messages[].content[].prompt_cache_breakpoint': 'prefixes are cached automatically',
};
