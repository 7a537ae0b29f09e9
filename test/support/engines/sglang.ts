/**
 * SGLang's form: srt/entrypoints/openai of its public source. Every field of a delta is there and
 * null, the stop that matched is text or, at the end of a turn, a token that nobody asked for.
 */
import { frame, outputTokens, promptTokens, validationMessage } from './scenario.ts';
import type { EngineMake, Scenario } from './scenario.ts';

const endOfTurnToken = 151_645;

const error = (message: string, code = 400, type = 'BadRequestError') => ({
  object: 'error',
  message,
  type,
  param: null,
  code,
});

const head = (object: string, model: string) => ({
  id: '1f0c9b5e',
  object,
  created: 1_800_000_000,
  model,
});

const bare = { role: null, content: null, reasoning_content: null, tool_calls: null };

const ending = ({ finish, matchedStop }: Scenario, isCall: boolean) => ({
  logprobs: null,
  finish_reason: isCall ? 'tool_calls' : finish,
  matched_stop: finish === 'length' ? null : (matchedStop ?? endOfTurnToken),
});

function finalUsage(scenario: Scenario) {
  const completion = outputTokens(scenario);
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completion,
    completion_tokens: completion,
    prompt_tokens_details:
      scenario.cachedTokens === null ? null : { cached_tokens: scenario.cachedTokens },
    reasoning_tokens: scenario.reasoning.length,
  };
}

export const sglang: EngineMake = {
  name: 'SGLang',
  tellsStop: true,
  countsReasoning: true,
  chat(scenario, model) {
    const object = 'chat.completion.chunk';
    const calls = scenario.calls.flatMap(({ id, name, pieces }, index) =>
      pieces.map((json, at) => ({
        ...bare,
        tool_calls: [
          {
            id: at === 0 ? id : null,
            index,
            type: 'function',
            function: { name: at === 0 ? name : null, arguments: json },
          },
        ],
      })),
    );
    const deltas = [
      { ...bare, role: 'assistant', content: '' },
      ...scenario.reasoning.map((text) => ({ ...bare, reasoning_content: text })),
      ...scenario.words.map((content) => ({ ...bare, content })),
      ...calls,
    ];
    const event = (choice: object) =>
      frame({ ...head(object, model), choices: [{ index: 0, ...choice }], usage: null });
    return {
      pieces: deltas.map((delta) =>
        event({ delta, logprobs: null, finish_reason: null, matched_stop: null }),
      ),
      end: [
        event({ delta: bare, ...ending(scenario, scenario.calls.length > 0) }),
        frame({ ...head(object, model), choices: [], usage: finalUsage(scenario) }),
      ],
    };
  },
  text(scenario, model) {
    const object = 'text_completion';
    const event = (choice: object) =>
      frame({ ...head(object, model), choices: [{ index: 0, ...choice }], usage: null });
    return {
      pieces: scenario.words.map((text) =>
        event({ text, logprobs: null, finish_reason: null, matched_stop: null }),
      ),
      end: [
        event({ text: '', ...ending(scenario, false) }),
        frame({ ...head(object, model), choices: [], usage: finalUsage(scenario) }),
      ],
    };
  },
  validation: { status: 400, body: error(validationMessage) },
  overflow: {
    status: 400,
    body: error("The input (8193 tokens) is longer than the model's context length (8192 tokens)."),
  },
  streamError:
    frame({ error: error('Scheduler hit an exception', 500, 'InternalServerError') }) +
    'data: [DONE]\n\n',
};
