/**
 * Parameters of OpenAI's, DeepSeek's and vLLM's documentation that are refused by name, each with
 * its reason. A parameter that is in none of the schemas nor here is refused as unknown: nothing
 * that a client asks for is ever ignored silently.
 */
const reasons: Readonly<Record<string, string>> = {
  audio: 'the model reads and writes text only',
  best_of: 'use n and choose among the answers',
  function_call: 'it was replaced by tool_choice',
  functions: 'it was replaced by tools',
  guided_json: 'use response_format with a json_schema',
  guided_regex: 'use response_format with a json_schema of a string with a pattern',
  metadata: 'the worker stores no completions',
  modalities: 'the model reads and writes text only',
  moderation: 'the worker does not moderate',
  prediction: 'the engine takes no predicted output',
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
  const pattern = param.replaceAll(/\[\d+\]/g, '[]');
  return Object.hasOwn(reasons, pattern) ? (reasons[pattern] ?? null) : null;
}
