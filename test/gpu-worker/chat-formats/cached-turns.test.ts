/**
 * The share of each prompt that stands at the beginning of an earlier one, over ten turns with
 * tools and thinking: a format that drops reasoning writes a history anew once the user speaks
 * again.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { canonicalBytes, prefixChain, prefixRoot } from '../../../edge/prefix/chain.ts';
import type { ChatFormat } from '../../../gpu-worker/chat-formats/chat-format.ts';
import { readConversation } from '../../../gpu-worker/http/request/chat-prompt.ts';
import { chatCompletionRequestSchema } from '../../../gpu-worker/protocol/requests.ts';
import { formatModel } from '../../support/worker/format-models.ts';

const turns = 10;
/** Tokens of a block, the unit in which prefixes are cached. */
const blockTokens = 64;
const formats = ['deepseek-v32', 'deepseek-v31', 'glm'] as const;

const words = (count: number, seed: number): string =>
  Array.from({ length: count }, (_, index) => `word${(index * 7 + seed) % 97}`).join(' ');
const parameters = { type: 'object', properties: { place: { type: 'string' } } };
const tools = [{ type: 'function', function: { name: 'look', description: 'Looks.', parameters } }];

/** Both requests of each turn: the user's, and the one that brings the tool's result. */
function requestsOf(thinking: boolean): { turn: number; messages: object[] }[] {
  const messages: object[] = [{ role: 'system', content: words(60, 1) }];
  const requests: { turn: number; messages: object[] }[] = [];
  const reasoned = (seed: number) => (thinking ? { reasoning_content: words(40, seed) } : {});
  for (let turn = 0; turn < turns; turn++) {
    messages.push({ role: 'user', content: words(30, turn) });
    requests.push({ turn, messages: [...messages] });
    const called = { name: 'look', arguments: JSON.stringify({ place: words(3, turn) }) };
    const call = { id: `c${turn}`, type: 'function', function: called };
    messages.push({ role: 'assistant', content: null, ...reasoned(turn), tool_calls: [call] });
    messages.push({ role: 'tool', tool_call_id: `c${turn}`, content: words(50, turn) });
    requests.push({ turn, messages: [...messages] });
    messages.push({ role: 'assistant', content: words(40, turn), ...reasoned(turn + 50) });
  }
  return requests;
}

/** Per turn the percentage of its prompts' tokens that an earlier prompt begins with. */
function cachedShares(format: (typeof formats)[number], thinking: boolean): number[] {
  const { chatFormat } = formatModel(format);
  const seen: Int32Array[] = [];
  const tokens = Array.from({ length: turns }, () => ({ cached: 0, all: 0 }));
  for (const { turn, messages } of requestsOf(thinking)) {
    const prompt = promptOf(chatFormat, messages, thinking);
    const sum = tokens[turn];
    if (sum === undefined) continue;
    sum.cached += cachedTokens(seen, prompt);
    sum.all += prompt.length;
    seen.push(prompt);
  }
  return tokens.map(({ cached, all }) => Math.round((100 * cached) / all));
}

function promptOf(format: ChatFormat, messages: readonly object[], thinking: boolean): Int32Array {
  const type = thinking ? 'enabled' : 'disabled';
  const body = { model: 'm', messages, tools, thinking: { type } };
  const { chat } = readConversation(format, chatCompletionRequestSchema.parse(body));
  return format.render(chat).tokens;
}

function cachedTokens(seen: readonly Int32Array[], prompt: Int32Array): number {
  const longest = Math.max(0, ...seen.map((earlier) => commonLength(earlier, prompt)));
  return Math.floor(longest / blockTokens) * blockTokens;
}

function commonLength(a: Int32Array, b: Int32Array): number {
  const differs = a.findIndex((token, index) => token !== b[index]);
  return differs < 0 ? Math.min(a.length, b.length) : differs;
}

test('the cached share per turn is what docs/caching.md says', () => {
  const rows = formats.flatMap((format) =>
    [false, true].map((thinking) => {
      const cells = [`\`${format}\``, thinking ? 'yes' : 'no', ...cachedShares(format, thinking)];
      return cells.map(String);
    }),
  );
  const documented = readFileSync(new URL('../../../docs/caching.md', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => /^\| `[^`]+` +\| (yes|no) +\|/.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  expect(documented).toEqual(rows);
});

/** Over all requests: the share of their bytes that the edge promises, and what a worker finds. */
function promisedAndFound(format: (typeof formats)[number], thinking: boolean) {
  const { chatFormat } = formatModel(format);
  const names = { tenant: 't', scope: '', model: 'm', revision: '', tokenizer: '' };
  const root = prefixRoot('a secret', names);
  const seen: Int32Array[] = [];
  const known = new Set<string>();
  const sum = { promised: 0, bytes: 0, found: 0, tokens: 0 };
  for (const { messages } of requestsOf(thinking)) {
    const prompt = promptOf(chatFormat, messages, thinking);
    const parts = [
      { kind: 'tools', value: tools } as const,
      ...messages.map((value) => ({ kind: 'message', value }) as const),
    ];
    const chain = prefixChain(parts, root);
    sum.promised += chain.findLast(({ key }) => known.has(key))?.bytes ?? 0;
    sum.bytes += canonicalBytes(parts).length;
    sum.found += cachedTokens(seen, prompt);
    sum.tokens += prompt.length;
    for (const { key } of chain) known.add(key);
    seen.push(prompt);
  }
  return { promised: sum.promised / sum.bytes, found: sum.found / sum.tokens };
}

test.each(formats)('the edge promises at most 5% more than a worker finds: %s', (format) => {
  for (const thinking of [false, true]) {
    const { promised, found } = promisedAndFound(format, thinking);
    expect(promised).toBeGreaterThan(0.5);
    expect(promised - found).toBeLessThan(0.05);
  }
});

test('a conversation of ten turns is mostly cached in its last one', () => {
  for (const format of formats) {
    expect(cachedShares(format, false).at(-1)).toBeGreaterThan(85);
    expect(cachedShares(format, true).at(-1)).toBeGreaterThan(60);
  }
});
