/**
 * TensorRT-LLM's form: tensorrt_llm/serve of its public source. Deltas hold empty texts, absent
 * fields are left out, a named function's pieces have its name each and no id, events end in a
 * space.
 */
import { outputTokens, promptTokens, validationMessage } from './scenario.ts';
import type { EngineMake, Scenario } from './scenario.ts';

const frame = (value: unknown) => `data: ${JSON.stringify(value)} \n\n`;

const error = (message: string, code = 400, type = 'BadRequestError') => ({
  object: 'error',
  message,
  type,
  param: null,
  code,
});

const head = (object: string, model: string) => ({
  id: 'chatcmpl-9',
  object,
  created: 1_800_000_000,
  model,
});

const usage = ({ cachedTokens }: Scenario, done: number) => ({
  prompt_tokens: promptTokens,
  total_tokens: promptTokens + done,
  completion_tokens: done,
  ...(cachedTokens !== null && { prompt_tokens_details: { cached_tokens: cachedTokens } }),
});

const ending = ({ finish, matchedStop }: Scenario, isCall: boolean) => ({
  finish_reason: isCall ? 'tool_calls' : finish,
  ...(matchedStop !== null && { stop_reason: matchedStop }),
});

function events(scenario: Scenario, object: string, model: string, choices: readonly object[]) {
  const written = choices.map((choice, done) =>
    frame({
      ...head(object, model),
      choices: [{ index: 0, ...choice }],
      usage: usage(scenario, Math.min(done, outputTokens(scenario))),
    }),
  );
  const last = frame({
    ...head(object, model),
    choices: [],
    usage: usage(scenario, outputTokens(scenario)),
  });
  return { pieces: written.slice(0, -1), end: [...written.slice(-1), last] };
}

export const tensorrtLlm: EngineMake = {
  name: 'TensorRT-LLM',
  tellsStop: true,
  countsReasoning: false,
  chat(scenario, model) {
    const empty = { content: '', reasoning_content: '' };
    const calls = scenario.calls.flatMap(({ id, name, pieces }, index) =>
      pieces.map((json, at) => ({
        ...empty,
        tool_calls: [
          {
            ...(at === 0 && { id }),
            type: 'function',
            index,
            function: { ...(at === 0 && { name }), arguments: json },
          },
        ],
      })),
    );
    const deltas = [
      { role: 'assistant' },
      ...scenario.reasoning.map((text) => ({ ...empty, reasoning_content: text })),
      ...scenario.words.map((content) => ({ ...empty, content })),
      ...calls,
    ];
    return events(scenario, 'chat.completion.chunk', model, [
      ...deltas.map((delta) => ({ delta })),
      { delta: empty, ...ending(scenario, scenario.calls.length > 0) },
    ]);
  },
  text: (scenario, model) =>
    events(scenario, 'text_completion', model, [
      ...scenario.words.map((text) => ({ text })),
      { text: '', ...ending(scenario, false) },
    ]),
  validation: { status: 400, body: { error: validationMessage } },
  overflow: {
    status: 400,
    body: error(
      'The sum of prompt length (8193.0), query length (0) and max_tokens (16) should not exceed max_seq_len (8192)',
    ),
  },
  streamError: frame(error('Error in kernel execution', 500, 'InternalServerError')),
};
