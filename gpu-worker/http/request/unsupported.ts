/**
 * Parameters of OpenAI's, DeepSeek's and vLLM's documentation that are refused by name, each with
 * its reason. A parameter that is in none of the schemas nor here is refused as unknown: nothing
 * that a client asks for is ever ignored silently.
 */
import { reasonIn } from '../../protocol/parse.ts';
import { unsupportedByAll } from '../../protocol/unsupported.ts';

const reasons: Readonly<Record<string, string>> = {
  ...unsupportedByAll,
  best_of: 'use n and choose among the answers',
  metadata: 'the worker stores no completions',
  modalities: 'the model reads and writes text only',
  moderation: 'the worker does not moderate',
  priority: 'requests of equal cache_salt are served in order of arrival',
  prompt_cache_key: 'use cache_salt',
  prompt_cache_retention: 'cached prefixes stay until their room is needed',
  safety_identifier: 'use user',
  service_tier: 'there is one tier',
  store: 'the worker stores no completions',
  user_id: 'use cache_salt for isolation and user for the log',
  verbosity: 'the model has no levels of verbosity',
  web_search_options: 'the worker does not search the web',
};

/** `null` if the parameter is not known at all. `param` may hold indices: `messages[0].name`. */
export function reasonUnsupported(param: string): string | null {
  return reasonIn(reasons, param);
}
