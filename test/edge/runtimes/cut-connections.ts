/**
 * The client's view of a connection that is cut in the middle of an answer under an
 * Idempotency-Key, asked of a running edge through a TCP relay that a test cuts.
 */
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import type { RunningEdge } from './end-to-end.ts';
import { balanceOf } from './end-to-end-runtimes.ts';

const words = Array.from({ length: 60 }, (_, at) => ` ${at}`);
const answerText = words.join('');
let keys = 0;
const nextKey = () => ({ 'Idempotency-Key': `cut-${process.pid}-${keys++}` });

export function describeCutConnections(edge: () => RunningEdge): void {
  const script = () => {
    edge().stub.script = { ...plainScript, words, pauseMs: 20, promptTokens: 10, cachedTokens: 0 };
    return edge().stub;
  };
  const priceOf = () =>
    Math.ceil((10 * edge().price.inputUncached + words.length * edge().price.output) / 1_000_000);

  /** Runs it, and expects one request at the worker and one bill. */
  const paidOnce = async (run: (cut: Cuttable) => Promise<void>): Promise<void> => {
    const stub = script();
    const asked = stub.requests.length;
    const before = await balanceOf(edge());
    const relay = await startCuttable(edge().baseUrl);
    try {
      await run(relay);
    } finally {
      await relay.close();
    }
    expect(stub.requests.length - asked).toBe(1);
    await expect.poll(async () => before - (await balanceOf(edge()))).toBe(priceOf());
  };

  const made = async (count: number) => {
    const output = () => [...edge().stub.records.values()].at(-1)?.output ?? 0;
    await expect.poll(output).toBeGreaterThan(count);
  };

  const hello = () => ({
    model: edge().model,
    max_tokens: 100,
    messages: [{ role: 'user' as const, content: 'Count.' }],
  });

  test('the openai package retries a whole answer that was cut twice, and it is paid once', async () => {
    await paidOnce(async (relay) => {
      const client = new OpenAI({
        baseURL: `${relay.url}/v1`,
        apiKey: edge().apiKey,
        maxRetries: 4,
      });
      const asked = edge().stub.records.size;
      const answer = client.chat.completions.create(hello(), { headers: nextKey() });
      await expect.poll(() => edge().stub.records.size).toBe(asked + 1);
      await made(2);
      relay.cut();
      await expect.poll(() => relay.open()).toBeGreaterThan(0);
      relay.cut();
      expect((await answer).choices[0]?.message.content).toBe(answerText);
    });
  });

  test('the anthropic package retries a whole answer that was cut, and it is paid once', async () => {
    await paidOnce(async (relay) => {
      const client = new Anthropic({
        baseURL: `${relay.url}/anthropic`,
        apiKey: edge().apiKey,
        maxRetries: 4,
      });
      const asked = edge().stub.records.size;
      const answer = client.messages.create(hello(), { headers: nextKey() });
      await expect.poll(() => edge().stub.records.size).toBe(asked + 1);
      await made(2);
      relay.cut();
      expect((await answer).content).toMatchObject([{ type: 'text', text: answerText }]);
    });
  });

  test('a stream that was cut is read on after its last event, and it is paid once', async () => {
    await paidOnce(async (relay) => {
      const headers = nextKey();
      const post = (more: object = {}) =>
        fetch(`${relay.url}/v1/chat/completions`, {
          method: 'POST',
          headers: {
            authorization: `Bearer ${edge().apiKey}`,
            'content-type': 'application/json',
            ...headers,
            ...more,
          },
          body: JSON.stringify({ ...hello(), stream: true }),
        });
      let text = '';
      for (let cuts = 0; !text.includes('[DONE]'); cuts++) {
        // Whatever came of an event that was cut in two is not an event.
        text = text.slice(0, text.lastIndexOf('\n\n') + 2);
        const last = text
          .match(/^id: (\d+)$/gm)
          ?.at(-1)
          ?.slice(4);
        const response = await post(last === undefined ? {} : { 'last-event-id': last });
        expect(response.status).toBe(200);
        const decoder = new TextDecoder();
        try {
          for await (const piece of response.body ?? []) {
            text += decoder.decode(piece, { stream: true });
            if (cuts < 3 && text.length > 3_000 * (cuts + 1)) relay.cut();
          }
        } catch {
          // The cut.
        }
      }
      const events = text.replaceAll(': keep-alive\n\n', '').split('\n\n').slice(0, -1);
      expect(events.map((event) => Number(/^id: (\d+)/.exec(event)?.[1]))).toEqual(
        events.map((_, index) => index + 1),
      );
      const contents = [...text.matchAll(/"content":"([^"]*)"/g)].map(([, content]) => content);
      expect(contents.join('')).toBe(answerText);
      // From its beginning, as an official client asks again.
      const client = new OpenAI({ baseURL: `${relay.url}/v1`, apiKey: edge().apiKey });
      const again = await client.chat.completions.create({ ...hello(), stream: true }, { headers });
      let whole = '';
      for await (const chunk of again) whole += chunk.choices[0]?.delta.content ?? '';
      expect(whole).toBe(answerText);
    });
  });

  test.each([true, false])(
    'an answer (streamed: %s) whose client does not come back is made to its end, paid and kept',
    async (stream) => {
      const headers = nextKey();
      const ask = (base: string) =>
        fetch(`${base}/anthropic/v1/messages`, {
          method: 'POST',
          headers: { 'x-api-key': edge().apiKey, 'content-type': 'application/json', ...headers },
          body: JSON.stringify({ ...hello(), stream }),
        });
      await paidOnce(async (relay) => {
        const asked = edge().stub.records.size;
        const answer = ask(relay.url).then((response) => response.text());
        await expect.poll(() => edge().stub.records.size).toBe(asked + 1);
        await made(2);
        relay.cut();
        await expect(answer).rejects.toThrow(/terminated|fetch failed/);
      });
      const again = await ask(edge().baseUrl);
      expect(again.headers.get('idempotent-replayed')).toBe('true');
      expect(await again.text()).toContain(words.at(-1));
    },
  );

  test('several clients read one answer, some of them leave, and it is paid once', async () => {
    await paidOnce(async (relay) => {
      const headers = nextKey();
      const read = async (base: string) => {
        const client = new Anthropic({ baseURL: `${base}/anthropic`, apiKey: edge().apiKey });
        return await client.messages.stream(hello(), { headers }).finalText();
      };
      const cut = [read(relay.url), read(relay.url)].map((reading) => reading.catch(() => null));
      const stay = [read(edge().baseUrl), read(edge().baseUrl)];
      await expect.poll(() => relay.open()).toBe(2);
      await made(2);
      relay.cut();
      expect(await Promise.all(stay)).toEqual([answerText, answerText]);
      await Promise.all(cut);
    });
  });
}

interface Cuttable {
  readonly url: string;
  readonly open: () => number;
  /** Resets all connections at once. */
  readonly cut: () => void;
  close(): Promise<void>;
}

async function startCuttable(behind: string): Promise<Cuttable> {
  const sockets = new Set<Socket>();
  const { hostname, port } = new URL(behind);
  const server = createServer((client) => {
    const edge = connect(Number(port), hostname);
    for (const socket of [client, edge]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => {
        sockets.delete(socket);
        client.destroy();
        edge.destroy();
      });
    }
    client.pipe(edge).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A TCP server that listens has an address of this kind.
  const { port: own } = server.address() as AddressInfo;
  const cut = () => sockets.forEach((socket) => socket.resetAndDestroy());
  return {
    url: `http://127.0.0.1:${own}`,
    open: () => sockets.size / 2,
    cut,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        cut();
      }),
  };
}
