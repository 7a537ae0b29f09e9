/** Refusals of the Responses API, by status, code and the parameter at fault. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  inputTokensSchema,
  responseSchema,
} from '../../../edge/dialects/responses/response-schemas.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
beforeAll(async () => {
  edge = await startHarness();
});
afterAll(() => edge.close());

const asked = { model: testModel, input: 'Hello.' };
const user = { role: 'user', content: 'Hello.' };
const tool = { type: 'function', name: 'weather' };
const call = { type: 'function_call', call_id: 'c1', name: 'weather', arguments: '{}' };

const cases: readonly (readonly [object | string, number, string, string | null])[] = [
  ['{"model":', 400, 'invalid_json', null],
  [{ input: 'x' }, 400, 'missing_required_parameter', 'model'],
  [{ model: testModel }, 400, 'missing_required_parameter', 'input'],
  [{ ...asked, model: 'none' }, 404, 'model_not_found', 'model'],
  [{ ...asked, temprature: 1 }, 400, 'unknown_parameter', 'temprature'],
  [{ ...asked, input: [] }, 422, 'invalid_value', 'input'],
  [{ ...asked, input: [{ ...user, role: 'tool' }] }, 422, 'invalid_value', 'input[0].role'],
  [{ ...asked, input: [{ ...user, name: 'x' }] }, 400, 'unknown_parameter', 'input[0].name'],
  [{ ...asked, input: [{ role: 'user' }] }, 400, 'missing_required_parameter', 'input[0].content'],
  ...['input_image', 'input_file', 'input_audio'].map(
    (type) =>
      [
        { ...asked, input: [{ role: 'user', content: [{ type }] }] },
        422,
        'invalid_value',
        'input[0].content[0].type',
      ] as const,
  ),
  ...[
    'computer_call',
    'computer_call_output',
    'web_search_call',
    'file_search_call',
    'code_interpreter_call',
    'image_generation_call',
    'local_shell_call',
    'mcp_call',
    'mcp_approval_request',
    'custom_tool_call',
    'compaction',
  ].map(
    (type) =>
      [
        { ...asked, input: [user, { type, id: 'x' }] },
        422,
        'invalid_value',
        'input[1].type',
      ] as const,
  ),
  [
    { ...asked, input: [{ type: 'reasoning', summary: [], encrypted_content: 'gAAAA' }] },
    422,
    'invalid_value',
    'input[0].encrypted_content',
  ],
  [
    { ...asked, input: [user, { type: 'function_call_output', call_id: 'c1', output: 'x' }] },
    422,
    'invalid_value',
    'input[1].call_id',
  ],
  [
    { ...asked, input: [call, { type: 'function_call_output', call_id: 'c2', output: 'x' }] },
    422,
    'invalid_value',
    'input[1].call_id',
  ],
  ...['web_search', 'file_search', 'code_interpreter', 'computer_use_preview', 'mcp', 'custom'].map(
    (type) => [{ ...asked, tools: [{ type }] }, 422, 'invalid_value', 'tools[0].type'] as const,
  ),
  [{ ...asked, tools: [{ type: 'function' }] }, 400, 'missing_required_parameter', 'tools[0].name'],
  [{ ...asked, tools: [{ ...tool, name: 'a b' }] }, 422, 'invalid_value', 'tools[0].name'],
  [
    { ...asked, tools: [{ ...tool, defer_loading: true }] },
    422,
    'invalid_value',
    'tools[0].defer_loading',
  ],
  [{ ...asked, tool_choice: 'required' }, 422, 'invalid_value', 'tool_choice'],
  [{ ...asked, tool_choice: { type: 'file_search' } }, 422, 'invalid_value', 'tool_choice.type'],
  [
    {
      ...asked,
      tools: [tool],
      tool_choice: { type: 'allowed_tools', mode: 'auto', tools: [{ ...tool, name: 'x' }] },
    },
    422,
    'invalid_value',
    'tool_choice.tools[0].name',
  ],
  [{ ...asked, text: { verbosity: 'low' } }, 422, 'invalid_value', 'text.verbosity'],
  [{ ...asked, text: { format: { type: 'yaml' } } }, 422, 'invalid_value', 'text.format.type'],
  [
    { ...asked, text: { format: { type: 'json_schema', name: 'x' } } },
    400,
    'missing_required_parameter',
    'text.format.schema',
  ],
  [{ ...asked, reasoning: { effort: 'much' } }, 422, 'invalid_value', 'reasoning.effort'],
  [{ ...asked, reasoning: { summary: 'concise' } }, 422, 'invalid_value', 'reasoning.summary'],
  [{ ...asked, reasoning: { mode: 'pro' } }, 400, 'unsupported_parameter', 'reasoning.mode'],
  [{ ...asked, max_output_tokens: 0 }, 422, 'invalid_value', 'max_output_tokens'],
  [{ ...asked, max_output_tokens: '9' }, 400, 'invalid_type', 'max_output_tokens'],
  [{ ...asked, temperature: 3 }, 422, 'invalid_value', 'temperature'],
  [{ ...asked, top_p: 2 }, 422, 'invalid_value', 'top_p'],
  [{ ...asked, top_logprobs: 21 }, 422, 'invalid_value', 'top_logprobs'],
  [{ ...asked, truncation: 'auto' }, 422, 'invalid_value', 'truncation'],
  [{ ...asked, background: true }, 422, 'invalid_value', 'background'],
  [{ ...asked, include: ['file_search_call.results'] }, 422, 'invalid_value', 'include[0]'],
  [{ ...asked, metadata: { a: 1 } }, 400, 'invalid_type', 'metadata.a'],
  [{ ...asked, service_tier: 'gold' }, 422, 'invalid_value', 'service_tier'],
  [{ ...asked, prompt_cache_retention: '24h' }, 422, 'invalid_value', 'prompt_cache_retention'],
  [{ ...asked, stream_options: {} }, 422, 'invalid_value', 'stream_options'],
  [
    { ...asked, stream: true, stream_options: { include_obfuscation: true } },
    422,
    'invalid_value',
    'stream_options.include_obfuscation',
  ],
  ...[
    'access_programs',
    'background_options',
    'context_management',
    'conversation',
    'image',
    'max_completion_tokens',
    'max_tokens',
    'messages',
    'modalities',
    'moderation',
    'personality',
    'prompt',
    'prompt_cache_options',
    'reasoning_effort',
    'response_format',
    'verbosity',
  ].map((name) => [{ ...asked, [name]: {} }, 400, 'unsupported_parameter', name] as const),
  [{ model: asked.model, messages: [] }, 400, 'unsupported_parameter', 'messages'],
  [{ ...asked, previous_response_id: 'resp_1' }, 404, 'not_found', 'previous_response_id'],
  [{ ...asked, previous_response_id: '' }, 422, 'invalid_value', 'previous_response_id'],
  [{ ...asked, input: [{ id: 'msg_1' }] }, 404, 'not_found', 'input'],
  [
    { ...asked, input: [user, { type: 'item_reference', id: 'rs_1_0' }] },
    404,
    'not_found',
    'input',
  ],
  [{ ...asked, store: true, input: 'x'.repeat(600_000) }, 422, 'invalid_value', 'store'],
  [
    { ...asked, stream: true, top_logprobs: 20, max_output_tokens: 60_000 },
    422,
    'invalid_value',
    'top_logprobs',
  ],
];

test.each(cases)('%j is refused', async (body, status, code, param) => {
  const response = await edge.post('/v1/responses', body);
  const { error } = await response.json();
  expect({ status: response.status, ...error }).toMatchObject({ status, code, param });
  expect(error.type).toBe('invalid_request_error');
  if (param !== null && param !== 'top_logprobs' && status !== 404)
    expect(error.message).toContain(param);
  expect(edge.settles).toEqual([]);
});

test('the examples of the reference are taken as they stand', async () => {
  const document = await (await edge.app.request('/openapi.json')).json();
  const paths = ['/v1/responses', '/v1/responses/input_tokens'];
  for (const path of paths) {
    const { requestBody, responses } = document.paths[path].post;
    const { examples } = requestBody.content['application/json'].schema;
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) {
      const response = await edge.post(path, { ...example, model: testModel });
      expect(response.status).toBe(200);
      await response.text();
    }
    const [answer] = responses[200].content['application/json'].schema.examples;
    const schema = path === paths[0] ? responseSchema : inputTokensSchema;
    expect(schema.parse(answer)).toEqual(answer);
  }
  await edge.idle();
  edge.settles.splice(0);
});

test('null is absent, of what is not supported too', async () => {
  const body = { ...asked, conversation: null, prompt: null, tools: null, text: null };
  expect((await edge.post('/v1/responses', body)).status).toBe(200);
  edge.settles.splice(0);
});

test("a worker's refusal names the parameter as this API does", async () => {
  const message = "Invalid 'response_format.json_schema.schema.oneOf': it cannot be kept.";
  const refused = {
    message,
    type: 'x',
    code: 'invalid_value',
    param: 'response_format.json_schema',
  };
  const fault = { kind: 'reject', status: 422, body: { error: refused } } as const;
  edge.worker.script = { ...edge.worker.script, fault };
  const response = await edge.post('/v1/responses', asked);
  expect((await response.json()).error).toMatchObject({
    message: "Invalid 'text.format.schema.oneOf': it cannot be kept.",
    param: 'text.format',
  });
});

test('other methods and unknown paths are answered as errors of OpenAI', async () => {
  const wrong = await edge.get('/v1/responses');
  expect(wrong.status).toBe(405);
  expect(wrong.headers.get('allow')).toBe('POST');
  const unknown = await edge.post('/v1/responses/compact', asked);
  expect(unknown.status).toBe(405);
  expect(unknown.headers.get('allow')).toBe('GET, DELETE');
  expect((await unknown.json()).error.code).toBe('method_not_allowed');
});
