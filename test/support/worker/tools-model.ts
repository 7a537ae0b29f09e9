/**
 * The tiny model as one that thinks and calls tools: its weights, and a chat template that opens
 * its reasoning. It calls tools only where it must, and then as the grammar says. It thinks by
 * asking itself a question, because its rows of `<think>` and `</think>` are copies of those that
 * begin and end a user's turn. It is sure of itself at any temperature.
 */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deepseekV31Marks } from '../../../gpu-worker/tokenizer/call-marks.ts';

const { callsBegin, callsEnd, callBegin, callEnd, separator } = deepseekV31Marks;
const toolTokens = [callsBegin, callsEnd, callBegin, callEnd, separator];

const tiny = fileURLToPath(new URL('../../../gpu-worker/models/tiny/', import.meta.url));
const firstShard = 'model-00001-of-00002.safetensors';
const secondShard = 'model-00002-of-00002.safetensors';

/** Ids of the tiny model's control tokens. */
const tokens = { end: 1, pad: 2, user: 3, assistant: 4, think: 6, thinkEnd: 7 };
const vocabSize = 4_096;

const template = `
{%- set state = namespace(system='', question='') -%}
{%- for message in messages if message.role == 'system' -%}
{%- set state.system = state.system + message.content + '\\n\\n' -%}
{%- endfor -%}
{%- for tool in tools or [] -%}
{%- set state.system = state.system + (tool.function | tojson) + '\\n\\n' -%}
{%- endfor -%}
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- '<|user|>' + state.system + message.content -}}
{%- set state.system = '' -%}
{%- set state.question = message.content -%}
{%- elif message.role == 'tool' -%}
{{- '<|user|>' + message.content + '\\n\\n' + state.question -}}
{%- elif message.role == 'assistant' -%}
{{- '<|assistant|>' + (message.content or '') -}}
{%- if message.tool_calls -%}
{{- '<｜tool▁calls▁begin｜>' -}}
{%- for call in message.tool_calls -%}
{{- '<｜tool▁call▁begin｜>' + call.function.name -}}
{{- '<｜tool▁sep｜>' + call.function.arguments + '<｜tool▁call▁end｜>' -}}
{%- endfor -%}
{{- '<｜tool▁calls▁end｜>' -}}
{%- endif -%}
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' + ('<think>' if thinking else '') -}}{%- endif -%}
`;

export function writeToolsModel(directory: string): void {
  mkdirSync(directory, { recursive: true });
  const linked = ['config.json', 'model.safetensors.index.json', 'tokenizer.json', secondShard];
  for (const name of linked) {
    symlinkSync(join(tiny, name), join(directory, name));
  }
  writeFileSync(join(directory, firstShard), withOwnRows(readFileSync(join(tiny, firstShard))));
  const config = { ...readJson('tokenizer_config.json'), chat_template: template };
  writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify(config));
}

function withOwnRows(shard: Buffer): Buffer {
  const embedding = rowsOf(shard, 'model.embed_tokens.weight');
  const head = rowsOf(shard, 'lm_head.weight');
  embedding.copy(tokens.user, tokens.think);
  embedding.copy(tokens.assistant, tokens.thinkEnd);
  // Twice the score of the token that it stands for, so that it is always the one.
  head.copy(tokens.assistant, tokens.thinkEnd, 1);
  for (const content of toolTokens) {
    const id = idOf(content);
    // Half the score of a text's end: written only where a grammar leaves hardly anything else.
    if (content === callsEnd) head.copy(tokens.end, id, -1);
    else head.copy(tokens.pad, id);
  }
  // Sixteen times the logits: the likeliest token is drawn even by clients that send no
  // temperature.
  for (let token = 0; token < vocabSize; token++) head.copy(token, token, 4);
  return shard;
}

function idOf(content: string): number {
  // The file is ours, of the published form.
  const { added_tokens: added } = readJson('tokenizer.json') as {
    added_tokens: { id: number; content: string }[];
  };
  const token = added.find((each) => each.content === content);
  if (!token) throw new Error(`${content} is no token`);
  return token.id;
}

function rowsOf(shard: Buffer, name: string) {
  const headerBytes = Number(shard.readBigUInt64LE(0));
  // The file is ours, of the safetensors format.
  const header = JSON.parse(shard.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { readonly shape: readonly [number, number]; readonly data_offsets: readonly [number, number] }
  >;
  const tensor = header[name];
  if (!tensor) throw new Error(`${name} is not in the shard`);
  const { shape, data_offsets: offsets } = tensor;
  const start = 8 + headerBytes + offsets[0];
  const at = (row: number, column: number): number => start + (row * shape[1] + column) * 2;
  return {
    /** Scaled by a power of two, which a bfloat16 has in the bits from the seventh on. */
    copy(from: number, to: number, exponent = 0): void {
      for (let column = 0; column < shape[1]; column++) {
        const bits = shard.readUInt16LE(at(from, column));
        const isZero = (bits & 0x7fff) === 0;
        shard.writeUInt16LE(isZero ? bits : bits + exponent * 0x80, at(to, column));
      }
    },
  };
}

/** The files are ours: objects. */
function readJson(name: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(tiny, name), 'utf8'));
}
