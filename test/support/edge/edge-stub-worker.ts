/**
 * A worker with a script in place of a model: it speaks the protocol over real HTTP and SSE, keeps
 * a prefix cache per salt and a usage journal, and breaks exactly where its script says.
 */
import { serve } from '@hono/node-server';
import type { HttpBindings } from '@hono/node-server';
import { Hono } from 'hono';
import type { Context } from 'hono';
import type { AddressInfo } from 'node:net';

export interface StubScript {
  /** Pieces of reasoning: one event each, one token each. */
  readonly reasoning: readonly string[];
  readonly words: readonly string[];
  readonly toolCall: { readonly name: string; readonly arguments: string } | null;
  readonly finishReason: string;
  /** The one of the request's own stop strings that matched. */
  readonly stopReason: string | null;
  /** null: a quarter of the prompt's characters. */
  readonly promptTokens: number | null;
  /** null: what the stub's own cache has, in blocks of 64. */
  readonly cachedTokens: number | null;
  readonly pauseMs: number;
  /** The wait before the answer's head. */
  readonly queuedMs: number;
  /** It reads the request until the edge has left, and its journal does not know of it before. */
  readonly readsUntilLeft: boolean;
  /** The cut of events into network writes. */
  readonly writes: 'per-event' | 'all-at-once' | { readonly bytes: number };
  readonly usage: 'running' | 'final-only' | 'omitted' | 'twice' | 'explicit-zero';
  readonly fault: StubFault | null;
}

/** `event` counts the events before the fault, from 0. */
export type StubFault =
  | { readonly kind: 'status'; readonly status: number; readonly retryAfter?: string }
  | { readonly kind: 'reject'; readonly status: number; readonly body: unknown }
  | { readonly kind: 'not-a-stream' }
  /** Its journal's disk did not take the usage: the stream ends without `[DONE]`. */
  | { readonly kind: 'not-journalled' }
  | {
      readonly kind: 'die' | 'stall' | 'end-early' | 'garbage' | 'error-event' | 'bad-event';
      readonly event: number;
    };

export const plainScript: StubScript = {
  reasoning: [],
  words: ['Hel', 'lo', ' wörld', ' 🌍', '!'],
  toolCall: null,
  finishReason: 'stop',
  stopReason: null,
  promptTokens: null,
  cachedTokens: null,
  pauseMs: 0,
  queuedMs: 0,
  readsUntilLeft: false,
  writes: 'per-event',
  usage: 'running',
  fault: null,
};

interface StubRecord {
  readonly model: string;
  status: 'running' | 'done' | 'aborted' | 'failed';
  prompt: number;
  cached: number;
  output: number;
  reasoning: number;
}

export interface StubRequest {
  readonly id: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface StubWorker {
  readonly url: string;
  /** The script of the requests from now on. */
  script: StubScript;
  readonly requests: StubRequest[];
  readonly records: Map<string, StubRecord>;
  /** true if it answers GET /v1/requests/{id}/usage. */
  journal: boolean;
  close(): Promise<void>;
}

export interface StubOptions {
  readonly script?: Partial<StubScript>;
  readonly token: string;
  readonly model: string;
}

const encoder = new TextEncoder();
const blockTokens = 64;

export async function startStubWorker(options: StubOptions): Promise<StubWorker> {
  const app = new Hono<{ Bindings: HttpBindings }>();
  const seen = new Map<string, string[]>();
  const stub = {
    url: '',
    script: { ...plainScript, ...options.script },
    requests: [] as StubRequest[],
    records: new Map<string, StubRecord>(),
    journal: true,
    close: async () => {},
  };

  const generate = (kind: 'chat' | 'text') => async (c: Context<{ Bindings: HttpBindings }>) => {
    if (c.req.header('authorization') !== `Bearer ${options.token}`) {
      return c.json(errorBody('wrong token', 'invalid_api_key'), 401);
    }
    const script = stub.script;
    const id = c.req.header('x-request-id') ?? '';
    const body: unknown = await c.req.json();
    if (typeof body !== 'object' || body === null) return c.json(errorBody('no object'), 400);
    const request = { ...body } as Record<string, unknown>;
    const left = new Promise((resolve) => c.env.outgoing.once('close', resolve));
    stub.requests.push({ id, path: c.req.path, headers: c.req.header(), body: request });
    if (script.readsUntilLeft) await left;
    const { fault } = script;
    if (fault?.kind === 'status') {
      const headers = fault.retryAfter ? { 'retry-after': fault.retryAfter } : {};
      return new Response(JSON.stringify(errorBody('no room')), { status: fault.status, headers });
    }
    if (fault?.kind === 'reject') {
      return new Response(JSON.stringify(fault.body), { status: fault.status });
    }
    if (fault?.kind === 'not-a-stream') return c.json({ hello: 'there' });

    const text = JSON.stringify(request.messages ?? request.prompt);
    const salt = String(request.cache_salt);
    const prompt = script.promptTokens ?? Math.ceil(text.length / 4);
    const known = seen.get(salt) ?? [];
    const shared = Math.max(0, ...known.map((each) => commonLength(each, text)));
    const hit = Math.floor(shared / 4 / blockTokens) * blockTokens;
    seen.set(salt, [...known, text]);
    const record: StubRecord = {
      model: String(request.model),
      status: 'running',
      prompt,
      cached: Math.min(script.cachedTokens ?? hit, prompt),
      output: 0,
      reasoning: 0,
    };
    stub.records.set(id, record);
    if (c.env.outgoing.destroyed) record.status = 'aborted';
    if (script.queuedMs > 0) {
      await Promise.race([sleep(script.queuedMs), left]);
      if (c.env.outgoing.destroyed) record.status = 'aborted';
    }
    return answer(kind, { id, script, record, hangUp: () => c.env.outgoing.destroy() });
  };

  app.post('/v1/chat/completions', generate('chat'));
  app.post('/v1/completions', generate('text'));
  app.post('/tokenize', async (c) => {
    if (c.req.header('authorization') !== `Bearer ${options.token}`) {
      return c.json(errorBody('wrong token', 'invalid_api_key'), 401);
    }
    const { fault, promptTokens } = stub.script;
    if (fault?.kind === 'status') {
      return new Response(JSON.stringify(errorBody('no room')), { status: fault.status });
    }
    if (fault?.kind === 'reject') {
      return new Response(JSON.stringify(fault.body), { status: fault.status });
    }
    const body: Record<string, unknown> = await c.req.json();
    stub.requests.push({
      id: c.req.header('x-request-id') ?? '',
      path: c.req.path,
      headers: c.req.header(),
      body,
    });
    const count = promptTokens ?? Math.ceil(JSON.stringify(body.messages).length / 4);
    return c.json({ count, max_model_len: 65_536, tokens: Array.from({ length: count }, () => 1) });
  });
  app.get('/v1/requests/:id/usage', (c) => {
    const record = stub.records.get(c.req.param('id'));
    if (!stub.journal || !record) return c.json(errorBody('unknown request'), 404);
    return c.json({
      object: 'request.usage',
      id: c.req.param('id'),
      model: record.model,
      status: record.status,
      created: 1_800_000_000,
      updated: 1_800_000_000,
      usage: wireUsage(record),
    });
  });
  app.get('/v1/models', (c) =>
    c.json({
      object: 'list',
      data: [{ id: options.model, object: 'model', created: 1_800_000_000, owned_by: 'stub' }],
    }),
  );
  app.get('/health', (c) =>
    c.json({ status: 'ready', reason: null, models: [options.model], load: null }),
  );

  const server = await new Promise<ReturnType<typeof serve>>((resolve) => {
    const started = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, () =>
      resolve(started),
    );
  });
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  stub.url = `http://127.0.0.1:${port}`;
  stub.close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      if ('closeAllConnections' in server) server.closeAllConnections();
    });
  return stub;
}

interface Run {
  readonly id: string;
  readonly script: StubScript;
  readonly record: StubRecord;
  readonly hangUp: () => void;
}

function answer(kind: 'chat' | 'text', run: Run): Response {
  const { script, record } = run;
  const events = script.writes === 'all-at-once' ? allAtOnce(kind, run) : eventsOf(kind, run);
  const writes = typeof script.writes === 'object' ? cut(events, script.writes.bytes) : events;
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = await writes.next();
        if (cancelled) return;
        if (next.done) controller.close();
        else controller.enqueue(next.value);
      },
      cancel() {
        cancelled = true;
        if (record.status === 'running') record.status = 'aborted';
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}

async function* allAtOnce(kind: 'chat' | 'text', run: Run): AsyncGenerator<Uint8Array, void> {
  const pieces: Uint8Array[] = [];
  for await (const piece of eventsOf(kind, run)) pieces.push(piece);
  yield Buffer.concat(pieces);
}

async function* cut(
  pieces: AsyncGenerator<Uint8Array, void>,
  bytes: number,
): AsyncGenerator<Uint8Array, void> {
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; at += bytes) {
      yield piece.subarray(at, at + bytes);
      // Lets the network send what there is, so that the cut arrives as one.
      await sleep(1);
    }
  }
}

async function* eventsOf(kind: 'chat' | 'text', run: Run): AsyncGenerator<Uint8Array, void> {
  const { script, record } = run;
  const { fault } = script;
  const deltas = deltasOf(kind, script);
  for (const [index, { delta, token, finish }] of deltas.entries()) {
    if (fault && 'event' in fault && fault.event === index) {
      if (fault.kind === 'die') await die(run);
      if (fault.kind === 'end-early') return;
      if (fault.kind === 'stall') await new Promise(() => {});
      if (fault.kind === 'garbage') yield encoder.encode('data: <html>bad gateway</html>\n\n');
      if (fault.kind === 'bad-event') yield encoder.encode('data: {"choices":"none"}\n\n');
      if (fault.kind === 'error-event')
        yield frame(errorBody('the engine failed', 'internal_error'));
    }
    if (script.pauseMs > 0 && index > 0) await sleep(script.pauseMs);
    if (record.status !== 'running') return;
    if (token) record[token]++;
    const choice =
      kind === 'chat'
        ? { index: 0, delta, logprobs: null, finish_reason: finish }
        : { index: 0, text: delta.content ?? '', logprobs: null, finish_reason: finish };
    const stopReason = finish && script.stopReason ? { stop_reason: script.stopReason } : {};
    yield frame({
      ...head(kind, run),
      choices: [{ ...choice, ...stopReason }],
      ...(script.usage !== 'omitted' && script.usage !== 'final-only'
        ? { usage: wireUsage(record) }
        : {}),
    });
  }
  if (fault?.kind === 'die' && fault.event >= deltas.length) await die(run);
  record.status = 'done';
  const final = { ...head(kind, run), choices: [], usage: wireUsage(record) };
  if (script.usage !== 'omitted') yield frame(final);
  if (script.usage === 'twice') yield frame(final);
  if (script.usage === 'explicit-zero') {
    yield frame({ ...final, usage: wireUsage({ ...record, cached: 0, output: 0, reasoning: 0 }) });
  }
  if (fault?.kind === 'not-journalled') return;
  yield encoder.encode('data: [DONE]\n\n');
}

/** Takes the connection down once what was written has gone out. */
async function die(run: Run): Promise<never> {
  await sleep(10);
  run.record.status = 'failed';
  run.hangUp();
  return await new Promise<never>(() => {});
}

interface Delta {
  readonly delta: Record<string, unknown>;
  readonly token: 'output' | 'reasoning' | null;
  readonly finish: string | null;
}

function deltasOf(kind: 'chat' | 'text', script: StubScript): Delta[] {
  const { reasoning, words, toolCall, finishReason } = script;
  const event = (delta: Record<string, unknown>, token: Delta['token']): Delta => ({
    delta,
    token,
    finish: null,
  });
  return [
    ...(kind === 'chat' ? [event({ role: 'assistant', content: '' }, null)] : []),
    ...reasoning.map((word) => event({ reasoning_content: word }, 'reasoning' as const)),
    ...words.map((word) => event({ content: word }, 'output' as const)),
    ...(toolCall
      ? [
          event(
            { tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: toolCall }] },
            'output',
          ),
        ]
      : []),
    { delta: {}, token: null, finish: finishReason },
  ];
}

function head(kind: 'chat' | 'text', { id, record }: Run) {
  return {
    id: `stub-${id}`,
    object: kind === 'chat' ? 'chat.completion.chunk' : 'text_completion',
    created: 1_800_000_000,
    model: record.model,
    system_fingerprint: 'fp_stub',
  };
}

function wireUsage({ prompt, cached, output, reasoning }: StubRecord) {
  const completion = output + reasoning;
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: reasoning },
    prompt_cache_hit_tokens: cached,
    prompt_cache_miss_tokens: prompt - cached,
  };
}

function frame(value: object): Uint8Array {
  return encoder.encode(`data: ${JSON.stringify(value)}\n\n`);
}

function errorBody(message: string, code: string | null = null) {
  return { error: { message, type: 'server_error', param: null, code } };
}

function commonLength(a: string, b: string): number {
  const end = Math.min(a.length, b.length);
  for (let at = 0; at < end; at++) if (a[at] !== b[at]) return at;
  return end;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
