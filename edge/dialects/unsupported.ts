/**
 * Parameters of OpenAI's, DeepSeek's and Anthropic's documentation that are refused by name, each
 * with its reason. Nothing that a client asks for is ever ignored silently: what is neither in a
 * schema nor here is refused as unknown.
 */
import { reasonIn } from '../../gpu-worker/protocol/parse.ts';
import { unsupportedByAll } from '../../gpu-worker/protocol/unsupported.ts';

const openAiReasons: Readonly<Record<string, string>> = {
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

const anthropicReasons: Readonly<Record<string, string>> = {
  compaction: 'the client shortens its own conversation',
  inference_geo: 'the operator decides where the workers are',
  thread: 'conversations are not stored; send all messages',
  workspace_id: 'a key belongs to one account',
  'metadata.user_id': 'expected at most 512 characters',
  'messages[].content[].source': 'the model reads and writes text only',
};

/** `null` if the parameter is not known at all. `param` may hold indices: `messages[0].name`. */
export function reasonUnsupported(param: string, api: 'openai' | 'anthropic'): string | null {
  return reasonIn(api === 'openai' ? openAiReasons : anthropicReasons, param);
}
