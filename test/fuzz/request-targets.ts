/** Requests to every route of the edge and of a worker, mutated: none is answered with 500. */
import { adminEndpoints } from '../../edge/admin/routes.ts';
import { mounts } from '../../edge/edge.ts';
import { startHarness, testModel } from '../support/edge/edge-harness.ts';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { answering, httpWorker } from '../support/worker/http-worker.ts';
import type { Random } from '../support/random.ts';
import type { Target } from './fuzz.ts';
import { mutateText, mutateValue } from './mutate.ts';

interface FuzzedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
}

const tool = {
  type: 'function',
  function: {
    name: 'look',
    parameters: { type: 'object', properties: { a: { type: 'integer' } } },
  },
};
const chat = (model: string) => ({
  model,
  messages: [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: [{ type: 'text', text: 'Hi.' }] },
    {
      role: 'assistant',
      content: null,
      tool_calls: [{ id: 'c', type: 'function', function: { name: 'look', arguments: '{"a":1}' } }],
    },
    { role: 'tool', tool_call_id: 'c', content: 'x' },
  ],
  tools: [tool],
  max_tokens: 4,
  temperature: 0.5,
  stop: ['x'],
  seed: 3,
  stream: true,
  stream_options: { include_usage: true },
  response_format: {
    type: 'json_schema',
    json_schema: { name: 'n', schema: { type: 'object', properties: { a: { enum: [1, 'x'] } } } },
  },
});
const text = (model: string) => ({
  model,
  prompt: ['Once', 'upon'],
  max_tokens: 4,
  logprobs: 2,
  n: 2,
  logit_bias: { 5: 1 },
});
const anthropic = {
  model: testModel,
  max_tokens: 5,
  system: [{ type: 'text', text: 'x', cache_control: { type: 'ephemeral' } }],
  messages: [
    { role: 'user', content: [{ type: 'text', text: 'Hi.' }] },
    { role: 'assistant', content: [{ type: 'tool_use', id: 't', name: 'look', input: { a: 1 } }] },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't', content: 'x' }] },
  ],
  tools: [{ name: 'look', input_schema: { type: 'object' } }],
  thinking: { type: 'enabled', budget_tokens: 1_024 },
};

const adminBodies: readonly unknown[] = [
  { id: 'm', context_length: 5, revision: '1', tokenizer: 't' },
  { id: 'new', name: 'n' },
  { kind: 'granted', amount_nano_usd: 5, source: 's', note: '' },
  { limits: { requests_per_minute: 5, tokens_per_minute: null, concurrent_requests: 1 } },
  { label: 'l', scopes: ['inference'], limits: {} },
  { model: testModel, input_cached: 1, input: 2, output: 3, from_ms: 5 },
  { draining: true },
  { id: 'w', url: 'http://w.example' },
  { status: 'active' },
];

const odd = [
  '',
  '0',
  '-1',
  '1e99',
  'acme',
  '%00',
  '..%2f',
  'a'.repeat(300),
  '%ff',
  '☃',
  '9'.repeat(20),
];

function query(random: Random): string {
  const names = ['model', 'limit', 'after_id', 'from', 'to', 'day', 'lifecycle', 'before_id', 'x'];
  const pairs = Array.from(
    { length: random.integer(0, 2) },
    () => `${random.choose(names)}=${random.choose(odd)}`,
  );
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`;
}

function oddHeaders(random: Random): Record<string, string> {
  const header = random.choose([
    ['idempotency-key', random.choose(['k', 'a'.repeat(300), 'é', ' '])],
    ['last-event-id', random.choose(['1', '-1', 'x', '9'.repeat(30)])],
    ['content-type', random.choose(['text/plain', 'application/json; charset=x', ''])],
    ['content-encoding', 'gzip'],
    ['x-request-id', random.choose(['r', 'a'.repeat(500), '{}'])],
    ['anthropic-version', 'x'],
    ['stripe-signature', 't=1,v1=00'],
  ] as const);
  return random.integer(0, 4) === 0 ? { [header[0]]: header[1] } : {};
}

type Send = (request: FuzzedRequest) => Response | Promise<Response>;

async function expectNoFault(send: Send, request: FuzzedRequest): Promise<void> {
  const response = await send(request);
  const body = await response.text();
  if (response.status === 500) throw new Error(`status 500: ${body.slice(0, 300)}`);
  if (/internal_error|"api_error"/.test(body) && response.status === 200) {
    throw new Error(`an answer ends in an internal error: ${body.slice(-300)}`);
  }
}

function sent(method: string, path: string, json: unknown, random: Random): FuzzedRequest {
  const isBare = method === 'GET' || method === 'DELETE';
  const body = isBare ? null : mutateText(mutateValue(json, random), random);
  return { method, path: `${path}${query(random)}`, headers: oddHeaders(random), body };
}

export async function openRequestTargets(): Promise<readonly Target[]> {
  const edge = await startHarness({ mounts, balanceNanoUsd: 1e15, settings: { queueMsMax: 0 } });
  const worker = await httpWorker({ script: answering('x', 'y') });
  const publicRoutes: readonly (readonly [string, string, unknown])[] = [
    ['POST', '/v1/chat/completions', chat(testModel)],
    ['POST', '/v1/completions', text(testModel)],
    ['POST', '/anthropic/v1/messages', anthropic],
    ['POST', '/anthropic/v1/messages/count_tokens', anthropic],
    ['POST', '/v1/quote', chat(testModel)],
    ['POST', '/internal/workers/heartbeat', heartbeatOf({ id: 'fuzzed', state: 'draining' })],
    ['POST', '/payments/stripe', { id: 'evt', type: 'checkout.session.completed' }],
    ['GET', '/v1/models', null],
    ['GET', `/v1/models/${testModel}`, null],
    ['GET', '/anthropic/v1/models', null],
    ['GET', '/user/balance', null],
    ['GET', '/v1/usage', null],
  ];
  const tokenFor = (path: string): string => {
    if (path.startsWith('/admin')) return edge.settings.adminToken;
    return path.startsWith('/internal') ? edge.settings.workerToken : edge.apiKey;
  };
  const toEdge: Send = async ({ method, path, headers, body }) => {
    const authorization = `Bearer ${tokenFor(path)}`;
    return edge.app.request(path, {
      method,
      headers: { authorization, 'content-type': 'application/json', ...headers },
      ...(body !== null && { body }),
    });
  };
  const toWorker: Send = async ({ method, path, headers, body }) =>
    worker.app.request(path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body !== null && { body }),
    });
  const workerRoutes: readonly (readonly [string, string, unknown])[] = [
    ['POST', '/v1/chat/completions', chat('tiny')],
    ['POST', '/v1/completions', text('tiny')],
    ['POST', '/tokenize', { model: 'tiny', messages: chat('tiny').messages }],
    ['POST', '/v1/requests/r/cancel', {}],
    ['GET', '/v1/requests/r/usage', null],
    ['GET', '/v1/models', null],
  ];
  /** Made by `make` of the same target. */
  const asRequest = (mutant: unknown): FuzzedRequest => mutant as FuzzedRequest;
  return [
    {
      name: 'requests to the edge',
      share: 6,
      make: (random) => sent(...random.choose(publicRoutes), random),
      feed: (mutant) => expectNoFault(toEdge, asRequest(mutant)),
      close: async () => {
        await edge.idle();
        await edge.close();
      },
    },
    {
      name: 'requests of the operator',
      share: 2,
      make(random) {
        const { method, path } = random.choose(adminEndpoints);
        const filled = path.replaceAll(/\{\w+\}/g, () => encodeURI(random.choose(odd)) || 'acme');
        return sent(method.toUpperCase(), `/admin${filled}`, random.choose(adminBodies), random);
      },
      feed: (mutant) => expectNoFault(toEdge, asRequest(mutant)),
    },
    {
      name: 'requests to a worker',
      share: 2,
      make: (random) => sent(...random.choose(workerRoutes), random),
      feed: (mutant) => expectNoFault(toWorker, asRequest(mutant)),
      close: async () => {
        await worker[Symbol.asyncDispose]();
      },
    },
  ];
}
