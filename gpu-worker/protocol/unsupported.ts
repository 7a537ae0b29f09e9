/**
 * Parameters of OpenAI's documentation that edge and workers refuse by name for the same reasons.
 * Nothing that a client asks for is ever ignored silently: what is neither in a schema nor in such
 * a table is refused as unknown.
 */
export const unsupportedByAll: Readonly<Record<string, string>> = {
  audio: 'the model reads and writes text only',
  function_call: 'it was replaced by tool_choice',
  functions: 'it was replaced by tools',
  guided_json: 'use response_format with a json_schema',
  guided_regex: 'use response_format with a json_schema of a string with a pattern',
  prediction: 'the engine takes no predicted output',
};
