import { expect, test } from 'vitest';
import { eventBody } from '../../../edge/relay/event-body.ts';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function start(frames: AsyncGenerator<string, void>, stallMsMax = 60_000) {
  const left: string[] = [];
  const body = eventBody(frames, frames.next(), {
    keepAliveMs: 20,
    keepAlive: ': keep-alive\n\n',
    stallMsMax,
    onLeave: () => void left.push('left'),
  });
  return { body, left };
}

test('frames are asked for as they are read, one ahead', async () => {
  let made = 0;
  const { body } = start(
    (async function* () {
      for (; made < 100; made++) yield `${made} `;
    })(),
  );
  await sleep(30);
  expect(made).toBeLessThanOrEqual(1);
  const reader = body.getReader();
  await reader.read();
  await reader.read();
  await sleep(10);
  expect(made).toBeLessThanOrEqual(3);
  await reader.cancel();
});

test('keep-alives go out while no frame comes', async () => {
  const gate = Promise.withResolvers<string>();
  const { body } = start(
    (async function* () {
      yield await gate.promise;
    })(),
  );
  const reader = body.getReader();
  const read = async () => new TextDecoder().decode((await reader.read()).value);
  expect(await read()).toBe(': keep-alive\n\n');
  expect(await read()).toBe(': keep-alive\n\n');
  gate.resolve('late');
  let text = '';
  while (!text.endsWith('late')) text = await read();
  expect(text).toBe('late');
  expect((await reader.read()).done).toBe(true);
});

test('a reader that cancels is reported, and the generators are closed', async () => {
  let closed = false;
  const { body, left } = start(
    (async function* () {
      try {
        for (;;) yield 'x';
      } finally {
        closed = true;
      }
    })(),
  );
  const reader = body.getReader();
  await reader.read();
  await reader.cancel();
  await sleep(0);
  expect(left).toEqual(['left']);
  expect(closed).toBe(true);
});

test('a reader that leaves its frame unread for too long is taken for gone', async () => {
  const { body, left } = start(
    (async function* () {
      for (;;) yield 'x';
    })(),
    20,
  );
  await body.getReader().read();
  while (left.length === 0) await sleep(5);
  expect(left).toEqual(['left']);
});

test('a reader that waits for a slow worker is not', async () => {
  const { body, left } = start(
    (async function* () {
      await sleep(100);
      yield 'late';
    })(),
    20,
  );
  expect(await new Response(body).text()).toContain('late');
  expect(left).toEqual([]);
});

test('a generator that fails breaks the stream', async () => {
  const { body } = start(
    (async function* () {
      yield 'x';
      throw new Error('broken');
    })(),
  );
  await expect(new Response(body).text()).rejects.toThrow('broken');
});

test('frames that fail break the body, or end it with words about it', async () => {
  const failing = async function* (): AsyncGenerator<string, void> {
    yield 'a ';
    throw new Error('worn out');
  };
  await expect(new Response(start(failing()).body).text()).rejects.toThrow('worn out');
  const frames = failing();
  const told = eventBody(frames, frames.next(), {
    keepAliveMs: 20,
    keepAlive: '',
    stallMsMax: 60_000,
    // Nothing but an error is thrown above.
    onError: (error) => (error as Error).message,
    onLeave: () => {},
  });
  expect(await new Response(told).text()).toBe('a worn out');
});

test('a failure after the client left before it read anything is nobody’s', async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  const gate = Promise.withResolvers<string>();
  const { body } = start(
    (async function* () {
      yield await gate.promise;
    })(),
  );
  await body.cancel();
  gate.reject(new Error('too late'));
  await sleep(20);
  process.off('unhandledRejection', note);
  expect(unhandled).toEqual([]);
});
