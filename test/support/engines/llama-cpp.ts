/**
 * llama.cpp's form: tools/server of its public source. It does not tell which stop matched; its
 * count of cached tokens stands among its timings. The older form counts on the last choice's
 * event, ends without `[DONE]`, and writes errors as a field of their own.
 */
import { frame, outputTokens, promptTokens, validationMessage } from './scenario.ts';
import type { EngineMake, Scenario } from './scenario.ts';

function make(version: 'older' | 'newer'): EngineMake {
  const isNewer = version === 'newer';
  const error = (message: string, code = 400, type = 'invalid_request_error') => ({
    code,
    message,
    type,
  });
  const head = (object: string, model: string) => ({
    created: 1_800_000_000,
    id: 'chatcmpl-Zk9',
    model,
    system_fingerprint: 'b6000-abcdef0',
    object,
  });
  const counts = (scenario: Scenario) => ({
    usage: {
      completion_tokens: outputTokens(scenario),
      prompt_tokens: promptTokens,
      total_tokens: promptTokens + outputTokens(scenario),
    },
    timings: {
      ...(scenario.cachedTokens !== null && { cache_n: scenario.cachedTokens }),
      prompt_n: promptTokens - (scenario.cachedTokens ?? 0),
      predicted_n: outputTokens(scenario),
    },
  });
  const events = (
    scenario: Scenario,
    object: string,
    model: string,
    choices: readonly object[],
  ) => {
    const event = (choice: object, more: object = {}) =>
      frame({ choices: [{ index: 0, ...choice }], ...head(object, model), ...more });
    const last = choices.at(-1) ?? {};
    return {
      pieces: choices.slice(0, -1).map((choice) => event({ finish_reason: null, ...choice })),
      end: isNewer
        ? [event(last), frame({ choices: [], ...head(object, model), ...counts(scenario) })]
        : [event(last, counts(scenario))],
    };
  };

  return {
    name: `llama.cpp, ${version}`,
    tellsStop: false,
    countsReasoning: false,
    chat(scenario, model) {
      const calls = scenario.calls.flatMap(({ id, name, pieces }, index) =>
        pieces.map((json, at) => ({
          tool_calls: [
            {
              index,
              ...(at === 0 && { id, type: 'function' }),
              function: { ...(at === 0 && { name }), arguments: json },
            },
          ],
        })),
      );
      const deltas = [
        { role: 'assistant', content: null },
        ...scenario.reasoning.map((text) => ({ reasoning_content: text })),
        ...scenario.words.map((content) => ({ content })),
        ...calls,
      ];
      const finish = scenario.calls.length > 0 ? 'tool_calls' : scenario.finish;
      return events(scenario, 'chat.completion.chunk', model, [
        ...deltas.map((delta) => ({ delta })),
        { finish_reason: finish, delta: {} },
      ]);
    },
    text: (scenario, model) =>
      events(scenario, 'text_completion', model, [
        ...scenario.words.map((text) => ({ text, logprobs: null })),
        { text: '', logprobs: null, finish_reason: scenario.finish },
      ]),
    validation: { status: 400, body: { error: error(validationMessage) } },
    overflow: {
      status: isNewer ? 400 : 500,
      body: {
        error: {
          ...error(
            'the request exceeds the available context size. try increasing the context size or enable context shift',
            isNewer ? 400 : 500,
            'exceed_context_size_error',
          ),
          n_prompt_tokens: 8_193,
          n_ctx: 8_192,
        },
      },
    },
    streamError: isNewer
      ? frame({ error: error('Compute error.', 500, 'server_error') })
      : `error: ${JSON.stringify(error('Compute error.', 500, 'server_error'))}\n\n`,
  };
}

export const llamaCpp = make('newer');
export const llamaCppOlder = make('older');
