import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { BlockManager, createBlockTable } from '../../../gpu-worker/engine/block-manager.ts';
import { Scheduler } from '../../../gpu-worker/engine/scheduler.ts';
import { Sequence } from '../../../gpu-worker/engine/sequence.ts';
import { createPrompt, createRequest } from '../../support/worker/engine-driver.ts';

/** Leading blocks of the sequence's tokens that somebody else with its salt would find cached. */
function cachedBlocks(blocks: BlockManager, { salt, tokens, length }: Sequence): number {
  const table = createBlockTable({ salt, tokensMax: length });
  return blocks.match(table, tokens, length).blocks;
}

interface World {
  readonly scheduler: Scheduler;
  readonly blocks: BlockManager;
  /** Tokens computed so far per salt. */
  readonly service: Map<string, number>;
  /** Ids in the order of their first output token. */
  readonly started: string[];
  readonly ended: string[];
  submit(
    id: string,
    options: { salt: string; prompt: number; output: number; promptSeed?: number },
  ): Sequence;
  /** One step: everything chosen is computed, and token 7 is always sampled. Ids by tokens. */
  step(): Record<string, number>;
}

function createWorld(limits: {
  blocks: number;
  stepTokensMax: number;
  mixedTokensMax?: number;
  sequencesMax: number;
}): World {
  const blocks = new BlockManager({ blocks: limits.blocks });
  const { mixedTokensMax = limits.stepTokensMax } = limits;
  const scheduler = new Scheduler(blocks, { ...limits, mixedTokensMax, scoredRowsMax: 4 });
  let serial = 0;
  const world: World = {
    scheduler,
    blocks,
    service: new Map(),
    started: [],
    ended: [],
    submit(id, { salt, prompt, output, promptSeed }) {
      const request = createRequest({
        id,
        cacheSalt: salt,
        promptTokens: createPrompt(prompt, promptSeed ?? serial + 1),
        outputTokensMax: output,
      });
      const sequence = new Sequence(request, { choice: 0, serial: serial++ });
      scheduler.add(sequence, 'waiting');
      return sequence;
    },
    step() {
      const rows = scheduler.plan();
      for (const each of rows) scheduler.accept(each.sequence, each.count);
      const counts = rows.map(({ sequence, count }) => [sequence.requestId, count] as const);
      for (const { sequence: each, count } of rows) {
        world.service.set(each.salt, (world.service.get(each.salt) ?? 0) + count);
        if (each.pending > 0) continue;
        if (each.outputTokens === 0) world.started.push(each.requestId);
        each.append(7);
        if (each.outputTokens < each.outputTokensMax) continue;
        scheduler.end(each);
        world.ended.push(each.requestId);
      }
      return Object.fromEntries(counts);
    },
  };
  return world;
}

test('decodes come first, and prefill chunks share what is left of the step', () => {
  const world = createWorld({ blocks: 64, stepTokensMax: 100, sequencesMax: 4 });
  world.submit('a', { salt: 'x', prompt: 10, output: 50 });
  world.submit('b', { salt: 'x', prompt: 150, output: 50 });
  world.submit('c', { salt: 'x', prompt: 80, output: 50 });
  expect(world.step()).toEqual({ a: 10, b: 90 });
  expect(world.step()).toEqual({ a: 1, b: 60, c: 39 });
  expect(world.step()).toEqual({ a: 1, b: 1, c: 41 });
  expect(world.step()).toEqual({ a: 1, b: 1, c: 1 });
});

test('a step that decodes takes less of prompts, one that does not is full', () => {
  const world = createWorld({
    blocks: 64,
    stepTokensMax: 100,
    mixedTokensMax: 20,
    sequencesMax: 4,
  });
  world.submit('a', { salt: 'x', prompt: 150, output: 2 });
  expect(world.step()).toEqual({ a: 100 });
  expect(world.step()).toEqual({ a: 50 });
  world.submit('b', { salt: 'x', prompt: 150, output: 50 });
  expect(world.step()).toEqual({ a: 1, b: 19 });
  expect(world.step()).toEqual({ b: 100 });
});

test('a new scope goes before those that have had their share', () => {
  const world = createWorld({
    blocks: 500,
    stepTokensMax: 64,
    mixedTokensMax: 20,
    sequencesMax: 8,
  });
  for (const salt of ['x', 'y', 'z']) {
    world.submit(`${salt}-answer`, { salt, prompt: 10, output: 500 });
    world.submit(`${salt}-long`, { salt, prompt: 2_000, output: 1 });
  }
  for (let step = 0; step < 50; step++) world.step();
  world.submit('new', { salt: 'new', prompt: 16, output: 2 });
  world.step();
  expect(world.started.at(-1)).toBe('new');
});

test('one that waits for its share is served though new scopes keep coming', () => {
  const world = createWorld({ blocks: 500, stepTokensMax: 64, sequencesMax: 8 });
  world.submit('long', { salt: 'long', prompt: 2_000, output: 1 });
  for (let step = 0; step < 400; step++) {
    world.submit(`new-${step}`, { salt: `new-${step}`, prompt: 64, output: 1 });
    world.step();
  }
  expect(world.service.get('long')).toBeGreaterThan(1_000);
});

test('no more sequences run than the limit, and the next one starts when one ends', () => {
  const world = createWorld({ blocks: 64, stepTokensMax: 100, sequencesMax: 2 });
  for (const id of ['a', 'b', 'c']) world.submit(id, { salt: 'x', prompt: 5, output: 3 });
  expect(world.step()).toEqual({ a: 5, b: 5 });
  world.step();
  world.step();
  expect(world.ended).toEqual(['a', 'b']);
  expect(world.step()).toEqual({ c: 5 });
});

test('within a scope it is first come, first served', () => {
  const world = createWorld({ blocks: 40, stepTokensMax: 30, sequencesMax: 3 });
  const ids = Array.from({ length: 20 }, (_, index) => `r${index}`);
  for (const [index, id] of ids.entries())
    world.submit(id, { salt: 'x', prompt: 1 + ((index * 37) % 90), output: 4 });
  while (!world.scheduler.isIdle) world.step();
  expect(world.started).toEqual(ids);
});

test('scopes that always have work get the same number of tokens, within two steps', () => {
  const world = createWorld({ blocks: 2000, stepTokensMax: 64, sequencesMax: 16 });
  for (let index = 0; index < 300; index++) {
    world.submit(`many-${index}`, { salt: 'many', prompt: 50, output: 20 });
    if (index < 60) world.submit(`some-${index}`, { salt: 'some', prompt: 300, output: 5 });
    if (index < 4) world.submit(`huge-${index}`, { salt: 'huge', prompt: 5000, output: 1 });
  }
  let spread = 0;
  for (let step = 0; step < 400; step++) {
    world.step();
    const service = ['many', 'some', 'huge'].map((salt) => world.service.get(salt) ?? 0);
    spread = Math.max(spread, Math.max(...service) - Math.min(...service));
  }
  expect(world.service.get('huge')).toBeGreaterThan(7000);
  expect(spread).toBeLessThanOrEqual(2 * 64);
});

test('a new scope starts within two steps, though another one holds every place', () => {
  const world = createWorld({ blocks: 500, stepTokensMax: 64, sequencesMax: 4 });
  for (let index = 0; index < 1000; index++)
    world.submit(`many-${index}`, { salt: 'many', prompt: 40, output: 500 });
  for (let step = 0; step < 20; step++) world.step();
  world.submit('new', { salt: 'new', prompt: 40, output: 2 });
  world.step();
  expect(world.started.at(-1)).toBe('new');
  expect(world.scheduler.preemptions).toBe(1);
  for (let step = 0; step < 3; step++) world.step();
  expect(world.ended).toEqual(['new']);
});

test('a new scope starts at once, though one that is owed more work waits for a place', () => {
  const world = createWorld({ blocks: 500, stepTokensMax: 64, sequencesMax: 4 });
  for (let index = 0; index < 3; index++) {
    world.submit(`busy-${index}`, { salt: 'busy', prompt: 40, output: 500 });
  }
  for (let step = 0; step < 20; step++) world.step();
  for (let index = 0; index < 3; index++) {
    world.submit(`modest-${index}`, { salt: 'modest', prompt: 40, output: 500 });
  }
  for (let step = 0; step < 100; step++) world.step();
  world.submit('new', { salt: 'new', prompt: 40, output: 2 });
  world.step();
  expect(world.started.at(-1)).toBe('new');
});

test('places are given up to the newcomer by the scope with the most, and never its last one', () => {
  const world = createWorld({ blocks: 500, stepTokensMax: 64, sequencesMax: 3 });
  world.submit('a1', { salt: 'a', prompt: 5, output: 100 });
  world.submit('b1', { salt: 'b', prompt: 5, output: 100 });
  world.submit('b2', { salt: 'b', prompt: 5, output: 100 });
  world.step();
  world.submit('c1', { salt: 'c', prompt: 5, output: 100 });
  world.step();
  expect(Object.keys(world.step())).toEqual(['a1', 'b1', 'c1']);
  world.submit('d1', { salt: 'd', prompt: 5, output: 100 });
  world.step();
  expect(Object.keys(world.step())).toEqual(['a1', 'b1', 'c1']);
});

test('a stream of new scopes with small requests does not starve a large prompt', () => {
  const world = createWorld({ blocks: 500, stepTokensMax: 64, sequencesMax: 8 });
  const large = world.submit('large', { salt: 'large', prompt: 2000, output: 1 });
  let steps = 0;
  for (; large.state !== 'ended'; steps++) {
    expect(steps).toBeLessThan(400);
    // Four of them wait at any time, each in a scope that has had nothing yet.
    for (let index = 0; world.scheduler.waitingCount < 4; index++)
      world.submit(`small-${steps}-${index}`, { salt: `${steps}-${index}`, prompt: 60, output: 1 });
    world.step();
  }
  expect(steps).toBeGreaterThan(2000 / 64);
});

test('one that needs most of the cache is not overtaken for ever by small ones', () => {
  const world = createWorld({ blocks: 12, stepTokensMax: 64, sequencesMax: 8 });
  for (const index of [0, 1, 2])
    world.submit(`first-${index}`, { salt: `first-${index}`, prompt: 100, output: 40 });
  world.step();
  const large = world.submit('large', { salt: 'large', prompt: 700, output: 1 });
  for (let steps = 0; large.state !== 'ended'; steps++) {
    expect(steps).toBeLessThan(200);
    world.submit(`small-${steps}`, { salt: `small-${steps}`, prompt: 100, output: 40 });
    world.step();
  }
});

test('a scope that used little for long is ahead of the others for a bounded time only', () => {
  const world = createWorld({ blocks: 4000, stepTokensMax: 64, sequencesMax: 8 });
  world.submit('light', { salt: 'light', prompt: 5, output: 2000 });
  for (let index = 0; index < 20; index++)
    world.submit(`heavy-${index}`, { salt: 'heavy', prompt: 10_000, output: 1 });
  for (let step = 0; step < 500; step++) world.step();
  world.submit('late', { salt: 'light', prompt: 10_000, output: 1 });
  const before = world.service.get('heavy') ?? 0;
  for (let step = 0; step < 20; step++) world.step();
  expect(world.service.get('heavy')).toBeGreaterThan(before + 5 * 64);
});

test('out of blocks, the youngest of the most served scope is preempted, and never the oldest', () => {
  const world = createWorld({ blocks: 8, stepTokensMax: 400, sequencesMax: 8 });
  // Scope a is served most: the youngest of its sequences has to go, though b1 is younger.
  world.submit('a1', { salt: 'a', prompt: 60, output: 100 });
  world.submit('a2', { salt: 'a', prompt: 60, output: 100 });
  world.submit('a3', { salt: 'a', prompt: 60, output: 100 });
  const younger = world.submit('b1', { salt: 'b', prompt: 30, output: 100 });
  world.step();
  expect(world.scheduler.runningCount).toBe(4);
  let ran: string[] = [];
  for (let steps = 0; world.scheduler.preemptions === 0; steps++) {
    expect(steps).toBeLessThan(200);
    ran = Object.keys(world.step());
  }
  expect(ran).toEqual(['a1', 'a2', 'b1']);
  expect(younger.state).toBe('running');
  while (!world.scheduler.isIdle) world.step();
  expect(world.ended).toHaveLength(4);
});

test('the oldest is no victim even when its scope alone is the most served', () => {
  const world = createWorld({ blocks: 6, stepTokensMax: 400, sequencesMax: 8 });
  const oldest = world.submit('a1', { salt: 'a', prompt: 180, output: 100 });
  const younger = world.submit('b1', { salt: 'b', prompt: 60, output: 100 });
  while (world.scheduler.preemptions === 0) world.step();
  expect([oldest.state, younger.state]).toEqual(['running', 'waiting']);
  expect(younger.tokensAhead).toBe(160);
});

test('a sequence starts only when its blocks are there beside those promised to others', () => {
  const world = createWorld({ blocks: 8, stepTokensMax: 400, sequencesMax: 8 });
  world.submit('stored', { salt: 'x', prompt: 192, output: 1, promptSeed: 5 });
  while (!world.scheduler.isIdle) world.step();
  // The first takes the five free blocks, and one is to be spared for it: of the three idle ones
  // two are left. The other needs three, its two cached ones among them: they are idle too.
  world.submit('first', { salt: 'y', prompt: 320, output: 40 });
  const same = world.submit('same', { salt: 'x', prompt: 192, output: 1, promptSeed: 5 });
  expect(Object.keys(world.step())).toEqual(['first']);
  while (same.state !== 'ended') world.step();
  expect(world.scheduler.preemptions).toBe(0);
});

test('with room for one sequence only, the oldest goes on every step until it ends', () => {
  const world = createWorld({ blocks: 4, stepTokensMax: 64, sequencesMax: 8 });
  for (const index of [0, 1, 2, 3, 4])
    world.submit(`r${index}`, { salt: `scope-${index % 2}`, prompt: 100, output: 130 });
  let oldest: string | null = null;
  for (let steps = 0; !world.scheduler.isIdle; steps++) {
    expect(steps).toBeLessThan(2000);
    const ran = world.step();
    // Whoever was the oldest running one is not stopped by a younger one.
    const first = at(Object.keys(ran).toSorted(), 0);
    if (oldest !== null && !world.ended.includes(oldest)) expect(first <= oldest).toBe(true);
    oldest = first;
  }
  expect(world.ended).toHaveLength(5);
  expect(world.blocks.counts().held).toBe(0);
});

test('ending a sequence works in every state, and only once', () => {
  const world = createWorld({ blocks: 8, stepTokensMax: 64, sequencesMax: 1 });
  const running = world.submit('a', { salt: 'x', prompt: 5, output: 5 });
  const waiting = world.submit('b', { salt: 'x', prompt: 5, output: 5 });
  world.step();
  expect([running.state, waiting.state]).toEqual(['running', 'waiting']);
  world.scheduler.end(waiting);
  world.scheduler.end(running);
  expect(world.scheduler.isIdle).toBe(true);
  expect(world.scheduler.tokensInFlight()).toBe(0);
  expect(() => world.scheduler.end(running)).toThrow('a sequence in flight has a scope');
});

test('limits under which not every sequence could proceed are refused', () => {
  const blocks = new BlockManager({ blocks: 8 });
  const limits = { stepTokensMax: 8, mixedTokensMax: 4, sequencesMax: 5, scoredRowsMax: 1 };
  expect(() => new Scheduler(blocks, limits)).toThrow('a step has a token for every sequence');
});

test('blocks of a step are prefixes once its rows are accepted, and not before', () => {
  const world = createWorld({ blocks: 8, stepTokensMax: 130, sequencesMax: 2 });
  const sequence = world.submit('a', { salt: 'x', prompt: 192, output: 1 });
  const chunk = at(world.scheduler.plan(), 0);
  expect(chunk).toMatchObject({ firstRow: 0, count: 130, sampleRows: new Int32Array(0) });
  expect([sequence.computed, cachedBlocks(world.blocks, sequence)]).toEqual([0, 0]);
  world.scheduler.accept(sequence, chunk.count);
  expect([sequence.computed, cachedBlocks(world.blocks, sequence)]).toEqual([130, 2]);
  const rest = at(world.scheduler.plan(), 0);
  expect(rest).toMatchObject({ count: 62, sampleRows: Int32Array.of(61) });
  expect(cachedBlocks(world.blocks, sequence)).toBe(2);
  world.scheduler.accept(sequence, rest.count);
  expect([sequence.computed, cachedBlocks(world.blocks, sequence)]).toEqual([192, 3]);
});

test('a row that is planned and not accepted leaves no block behind when its sequence ends', () => {
  const world = createWorld({ blocks: 8, stepTokensMax: 64, sequencesMax: 2 });
  const sequence = world.submit('a', { salt: 'x', prompt: 128, output: 1 });
  world.step();
  expect(world.scheduler.plan()).toHaveLength(1);
  world.scheduler.end(sequence);
  expect(cachedBlocks(world.blocks, sequence)).toBe(1);
  expect(world.blocks.counts()).toEqual({ total: 8, free: 7, held: 0, idle: 1 });
});

test('of several rows that sample, those whose tokens were not kept are in no cached block', () => {
  for (const { kept, computed, cached } of [
    { kept: 1, computed: 62, cached: 0 },
    { kept: 2, computed: 63, cached: 0 },
    { kept: 3, computed: 64, cached: 1 },
  ]) {
    const world = createWorld({ blocks: 8, stepTokensMax: 64, sequencesMax: 2 });
    const sequence = world.submit('a', { salt: 'x', prompt: 64, output: 5 });
    expect(world.scheduler.plan()).toHaveLength(1);
    world.scheduler.accept(sequence, 61 + kept);
    expect([sequence.computed, cachedBlocks(world.blocks, sequence)], `${kept} kept`).toEqual([
      computed,
      cached,
    ]);
  }
});
