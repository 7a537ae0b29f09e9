/** Trails are compared with what a comparison of the texts themselves says; seeds are printed. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { placeAfter, promptTrail, sharedMarks } from '../../../edge/prefix/prompt-trail.ts';
import { prefixRoot } from '../../../edge/prefix/chain.ts';
import type { PromptPart } from '../../../edge/prefix/chain.ts';
import { RecentPrompts } from '../../../edge/prefix/recent-prompts.ts';

const root = (tenant: string) =>
  prefixRoot('secret', { tenant, scope: '', model: 'm', revision: 'r', tokenizer: 't' });
const trailOf = (parts: readonly PromptPart[], tenant = 'acme') => promptTrail(parts, root(tenant));
const message = (content: unknown, more: object = {}): PromptPart => ({
  kind: 'message',
  value: { role: 'user', content, ...more },
});

/** The place at which the second prompt begins to differ from the first. */
const place = (before: readonly PromptPart[], after: readonly PromptPart[]) => {
  const trail = trailOf(after);
  return placeAfter(trail, sharedMarks(trailOf(before).marks, trail.marks));
};

test('a difference lies within the place that is told, wherever it is', () => {
  const texts = fc.array(fc.string({ unit: 'binary', maxLength: 6_000 }), {
    minLength: 1,
    maxLength: 5,
  });
  fc.assert(
    fc.property(texts, fc.nat(), fc.nat(), (contents, which, where) => {
      const index = which % contents.length;
      const content = contents[index] ?? '';
      const at = where % (content.length + 1);
      const changed = `${content.slice(0, at)}\u0001${content.slice(at)}`;
      // The character put in may be the one that stands there.
      const first = [...changed].findIndex((_, i) => changed[i] !== content[i]);
      const after = contents.map((each, i) => message(i === index ? changed : each));
      const found = place(
        contents.map((each) => message(each)),
        after,
      );
      expect(found).toMatchObject({ kind: 'message', index });
      const differs = first === -1 ? content.length : [...changed].slice(0, first).join('').length;
      expect(found?.character).toBeLessThanOrEqual(differs);
      expect(found?.end).toBeGreaterThan(at === content.length ? at - 1 : Math.min(at, differs));
    }),
  );
});

describe('the place of a difference', () => {
  const long = 'word '.repeat(2_000);

  test.each([
    [0, 0, 16],
    [70, 64, 128],
    [2_050, 2_048, 2_560],
    [9_999, 9_728, 10_004],
  ])('at character %i is told as from %i to %i', (at, character, end) => {
    const changed = `${long.slice(0, at)}#${long.slice(at + 1)}`;
    const found = place([message('Hi.'), message(long)], [message('Hi.'), message(changed)]);
    expect(found).toMatchObject({
      kind: 'message',
      index: 1,
      character,
      end,
      before: 7 + character,
    });
  });

  test('counts parts of a content as one text, and other fields after it', () => {
    const parts = [
      { type: 'text', text: 'x'.repeat(40) },
      { type: 'text', text: 'y'.repeat(40) },
    ];
    expect(place([message(`${'x'.repeat(40)}${'y'.repeat(39)}z`)], [message(parts)])).toMatchObject(
      { character: 64 },
    );
    const called = { tool_calls: [{ id: 'a' }] };
    const other = { tool_calls: [{ id: 'b' }] };
    expect(place([message('', called)], [message('', other)])).toMatchObject({ kind: 'message' });
    expect(
      place([message('Hi.')], [{ kind: 'message', value: { role: 'system', content: 'Hi.' } }]),
    ).toMatchObject({ character: 0 });
  });

  test('may be the tools, the form of the answer or a prompt of text', () => {
    const tools = (name: string): PromptPart => ({ kind: 'tools', value: [{ name }] });
    expect(place([tools('a'), message('Hi.')], [tools('b'), message('Hi.')])).toMatchObject({
      kind: 'tools',
    });
    const format = (type: string): PromptPart => ({ kind: 'message', value: { type } });
    expect(
      place([message('Hi.'), format('json_object')], [message('Hi.'), format('json_schema')]),
    ).toMatchObject({ kind: 'response_format', index: 0 });
    expect(place([{ kind: 'text', value: 'abc' }], [{ kind: 'text', value: 'abd' }])).toMatchObject(
      { kind: 'text' },
    );
  });

  test('is none in a prompt that was seen whole', () => {
    expect(place([message(long)], [message(long)])).toBeNull();
  });
});

test('trails of two tenants have no mark in common', () => {
  const parts = [message('The same words. '.repeat(100))];
  const [ours, theirs] = [trailOf(parts), trailOf(parts, 'other')];
  expect(ours.marks.some((mark, index) => mark === theirs.marks[index])).toBe(false);
});

test('a trail has at most 1,024 marks, and counts all characters', () => {
  const parts = Array.from({ length: 400 }, () => message('x'.repeat(200)));
  const trail = trailOf(parts);
  expect(trail.marks).toHaveLength(1_024);
  expect(trail.characters).toBe(400 * 204);
  expect(placeAfter(trail, 1_024)).not.toBeUndefined();
});

describe('prompts that are remembered', () => {
  const marks = (...contents: string[]) => trailOf(contents.map((each) => message(each))).marks;

  test('a conversation that goes on takes the place of what it was', () => {
    const recent = new RecentPrompts();
    recent.remember({ marks: marks('one'), worker: 'a' });
    recent.remember({ marks: marks('one', 'two'), worker: 'b' });
    expect(recent.find(marks('one', 'two', 'three'))).toEqual({
      marks: 2,
      isWhole: true,
      worker: 'b',
    });
    expect(recent.find(marks('one', 'other'))).toEqual({ marks: 1, isWhole: false, worker: 'b' });
    expect(recent.find(marks('none'))).toBeNull();
  });

  test('the one that begins most like it is found, whichever came first', () => {
    const recent = new RecentPrompts();
    recent.remember({ marks: marks('one', 'two', 'x'), worker: 'a' });
    recent.remember({ marks: marks('one', 'y'), worker: 'b' });
    expect(recent.find(marks('one', 'two', 'z'))?.worker).toBe('a');
  });

  test('the oldest are forgotten beyond 256 prompts, and beyond 32,768 marks', () => {
    const recent = new RecentPrompts();
    for (let prompt = 0; prompt <= 256; prompt++) {
      recent.remember({ marks: marks(`${prompt}`), worker: 'a' });
    }
    expect(recent.find(marks('0'))).toBeNull();
    expect(recent.find(marks('1'))).not.toBeNull();
    const long = (prompt: number) =>
      marks(`${prompt}`, ...Array.from({ length: 300 }, () => 'x'.repeat(200)));
    for (let prompt = 0; prompt < 33; prompt++) {
      recent.remember({ marks: long(prompt), worker: 'a' });
    }
    expect(recent.find(marks('1'))).not.toBeNull();
    expect(recent.find(marks('200'))).toBeNull();
    expect(recent.find(long(32))?.marks).toBe(1_024);
  });
});
