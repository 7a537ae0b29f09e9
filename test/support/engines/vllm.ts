/**
 * vLLM's form: entrypoints/openai of its public source, before and after reasoning got its name.
 * The older one makes a new id for each piece of a call and writes errors flat.
 */
import { frame, outputTokens, promptTokens, validationMessage } from './scenario.ts';
import type { EngineMake, Scenario } from './scenario.ts';

function make(version: 'older' | 'newer'): EngineMake {
  const isNewer = version === 'newer';
  const error = (message: string, code = 400, type = 'BadRequestError') => {
    const fields = { message, type, param: null, code };
    return isNewer ? { error: fields } : { object: 'error', ...fields };
  };
  const head = (object: string, model: string) => ({
    id: 'chatcmpl-7d6f0d6a',
    object,
    created: 1_800_000_000,
    model,
  });
  const usage = (done: number) => ({
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + done,
    completion_tokens: done,
  });
  const finalUsage = (scenario: Scenario) => ({
    ...usage(outputTokens(scenario)),
    prompt_tokens_details:
      scenario.cachedTokens === null ? null : { cached_tokens: scenario.cachedTokens },
  });
  const end = (scenario: Scenario, object: string, model: string, last: object) => [
    frame({
      ...head(object, model),
      choices: [last],
      usage: usage(outputTokens(scenario)),
    }),
    frame({ ...head(object, model), choices: [], usage: finalUsage(scenario) }),
  ];
  const ending = ({ finish, matchedStop }: Scenario, isCall: boolean) => ({
    logprobs: null,
    finish_reason: isCall ? 'tool_calls' : finish,
    stop_reason: matchedStop,
    ...(isNewer && { token_ids: null }),
  });

  return {
    name: `vLLM, ${version}`,
    tellsStop: true,
    countsReasoning: false,
    chat(scenario, model) {
      const object = 'chat.completion.chunk';
      const calls = scenario.calls.flatMap(({ id, name, pieces }, index) =>
        pieces.map((json, at) => ({
          tool_calls: [
            at === 0
              ? { id, type: 'function', index, function: { name, arguments: json } }
              : {
                  ...(!isNewer && { id: `${id}-${at}`, type: 'function' }),
                  index,
                  function: { arguments: json },
                },
          ],
        })),
      );
      const deltas = [
        ...scenario.reasoning.map((text) =>
          isNewer ? { reasoning: text } : { reasoning_content: text, content: null },
        ),
        ...scenario.words.map((content) => ({ content })),
        ...calls,
      ];
      const events = [{ role: 'assistant', content: '' }, ...deltas].map((delta, done) =>
        frame({
          ...head(object, model),
          choices: [{ index: 0, delta, logprobs: null, finish_reason: null }],
          ...(done === 0 && isNewer && { prompt_token_ids: null }),
          usage: usage(done),
        }),
      );
      const last = {
        index: 0,
        delta: { content: '' },
        ...ending(scenario, scenario.calls.length > 0),
      };
      return { pieces: events, end: end(scenario, object, model, last) };
    },
    text(scenario, model) {
      const object = 'text_completion';
      const pieces = scenario.words.map((text, at) =>
        frame({
          ...head(object, model),
          choices: [{ index: 0, text, logprobs: null, finish_reason: null, stop_reason: null }],
          usage: usage(at + 1),
        }),
      );
      const last = { index: 0, text: '', ...ending(scenario, false) };
      return { pieces, end: end(scenario, object, model, last) };
    },
    validation: { status: 400, body: error(validationMessage) },
    overflow: {
      status: 400,
      body: error(
        isNewer
          ? "You passed 8193 input tokens and requested 16 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 8176 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=8193)"
          : "This model's maximum context length is 8192 tokens. However, you requested 8209 tokens (8193 in the messages, 16 in the completion). Please reduce the length of the messages or completion.",
      ),
    },
    streamError:
      frame(error('EngineCore encountered an issue.', 500, 'InternalServerError')) +
      'data: [DONE]\n\n',
  };
}

export const vllm = make('newer');
export const vllmOlder = make('older');
