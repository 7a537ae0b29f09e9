/** The fields of a request that its response repeats. */
import type { ResponsesRequest } from './request-schemas.ts';

/** Instructions and tools that are longer together are not repeated. */
const echoCharactersMax = 64 * 1024;

export function echoOf(request: ResponsesRequest): Readonly<Record<string, unknown>> {
  const { effort, summary, generate_summary: older } = request.reasoning ?? {};
  return {
    ...longFields(request),
    max_output_tokens: request.max_output_tokens ?? null,
    max_tool_calls: request.max_tool_calls ?? null,
    metadata: request.metadata ?? {},
    parallel_tool_calls: request.parallel_tool_calls ?? true,
    prompt_cache_key: request.prompt_cache_key ?? null,
    reasoning: { effort: effort ?? null, summary: summary ?? older ?? null },
    safety_identifier: request.safety_identifier ?? null,
    service_tier: 'default',
    temperature: request.temperature ?? null,
    tool_choice: request.tool_choice ?? 'auto',
    top_logprobs: request.top_logprobs ?? 0,
    top_p: request.top_p ?? null,
    truncation: 'disabled',
    user: request.user ?? null,
  };
}

function longFields({ instructions, tools, text }: ResponsesRequest) {
  const format = text?.format ?? { type: 'text' };
  const whole = {
    instructions: instructions ?? null,
    tools: (tools ?? []).map((tool) => ({ ...tool, strict: tool.strict ?? false })),
    text: { format, verbosity: 'medium' },
  };
  if (JSON.stringify(whole).length <= echoCharactersMax) return whole;
  return { instructions: null, tools: [], text: { format: { type: format.type } } };
}
