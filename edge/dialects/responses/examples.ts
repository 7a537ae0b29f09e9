/** Requests and answers of the Responses API as the reference shows them; a test runs them. */
const model = 'sift-tiny';
const city = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const weather = { type: 'function', name: 'weather', parameters: city, strict: false };
const call = { call_id: 'call_1', name: 'weather', arguments: '{"city":"Berlin"}' };

export const requestExamples: readonly [object, ...object[]] = [
  { model, input: 'Who are you?' },
  {
    model,
    instructions: 'Answer in one sentence.',
    input: [
      { role: 'user', content: 'What is the weather in Berlin?' },
      { type: 'function_call', ...call },
      { type: 'function_call_output', call_id: call.call_id, output: 'Sunny.' },
    ],
    tools: [weather],
    store: true,
    stream: true,
  },
  {
    model,
    input: 'Which city is it?',
    text: { format: { type: 'json_schema', name: 'city', schema: city } },
    reasoning: { effort: 'high', summary: 'auto' },
    max_output_tokens: 400,
  },
];

export const inputTokensRequestExamples = [{ model, input: 'Who are you?' }] as const;

export const responseExamples = [
  {
    id: 'resp_5f0c',
    object: 'response',
    created_at: 1_800_000_000,
    status: 'completed',
    error: null,
    incomplete_details: null,
    model,
    output: [
      {
        id: 'msg_5f0c_0',
        type: 'message',
        status: 'completed',
        role: 'assistant',
        content: [{ type: 'output_text', text: 'I am sift.', annotations: [], logprobs: [] }],
      },
    ],
    previous_response_id: null,
    store: false,
    usage: {
      input_tokens: 76,
      input_tokens_details: { cached_tokens: 64, cache_write_tokens: 0 },
      output_tokens: 5,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 81,
      cost_nano_usd: 7_252,
      cache_miss_reason: null,
    },
  },
];
