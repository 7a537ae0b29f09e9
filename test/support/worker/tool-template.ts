/**
 * The tiny model's tokenizer with tokens for results of tools and fill-in-the-middle, and a
 * chat template that writes everything out at length: tools as indented JSON in ASCII, calls with
 * their arguments, reasoning, and a system prompt of its own.
 */
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import type { ChatFormat } from '../../../gpu-worker/chat-formats/chat-format.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { deepseekFiles, tinyFiles } from '../../gpu-worker/tokenizer/fixture.ts';

const marks = [
  '<｜tool▁output▁begin｜>',
  '<｜tool▁output▁end｜>',
  '<｜fim▁begin｜>',
  '<｜fim▁hole｜>',
  '<｜fim▁end｜>',
];

const wordyTemplate = `{{- bos_token -}}
You are a helpful assistant. You are careful, and you say so when you do not know something.
{% if tools %}{% for tool in tools %}
## {{ tool.function.name }}
{{ tool.function.description }}
{{ tool | tojson(indent=4, ensure_ascii=True) }}
{% endfor %}
For each call, write its name and its arguments as JSON.
{% endif -%}
{% for message in messages -%}
### {{ message.role }}:
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif -%}
{{ message.content or '' }}
{% for call in message.tool_calls or [] %}<｜tool▁call▁begin｜>{{ call.id }} {{ call.function.name }}<｜tool▁sep｜>
{{ call.function.arguments | tojson(ensure_ascii=True) }}<｜tool▁call▁end｜>
{% endfor %}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}### assistant:
{{ '<think>' if thinking else '</think>' }}{% endif %}`;

export interface TextModel {
  readonly tokenizer: Tokenizer;
  readonly chatFormat: ChatFormat;
}

/** `wordy`: the template above; `deepseek`: V3.1's. */
export function openToolModel(kind: 'wordy' | 'deepseek'): TextModel {
  const { added_tokens: added } = tinyFiles.tokenizerJson;
  const tokens = marks.map((content, index) => ({ id: 4_096 + index, content, special: true }));
  const tokenizerConfig = {
    ...tinyFiles.tokenizerConfig,
    chat_template: kind === 'wordy' ? wordyTemplate : deepseekFiles.tokenizerConfig.chat_template,
  };
  const tokenizerJson = { ...tinyFiles.tokenizerJson, added_tokens: [...added, ...tokens] };
  const tokenizer = openTokenizer({ tokenizerJson, tokenizerConfig });
  return { tokenizer, chatFormat: openChatFormat({ tokenizerConfig, tokenizer }) };
}
