/**
 * The strings by which models mark their calls of tools, in the formats that are known. Some
 * tokenizers count them among the tokens that no text shows; whoever reads calls out of a model's
 * text has to see them.
 */

/** DeepSeek-V3, R1, V3.1 and V3.2-Exp. */
export const deepseekV31Marks = {
  callsBegin: '<｜tool▁calls▁begin｜>',
  callsEnd: '<｜tool▁calls▁end｜>',
  callBegin: '<｜tool▁call▁begin｜>',
  callEnd: '<｜tool▁call▁end｜>',
  separator: '<｜tool▁sep｜>',
} as const;

/** DeepSeek-V3.2; it stands behind the `<` or `</` of every tag. */
export const dsmlMark = '｜DSML｜';

/** GLM-4.5 and later. */
export const glmMarks = {
  callBegin: '<tool_call>',
  callEnd: '</tool_call>',
  keyBegin: '<arg_key>',
  keyEnd: '</arg_key>',
  valueBegin: '<arg_value>',
  valueEnd: '</arg_value>',
} as const;

export const callMarks: ReadonlySet<string> = new Set([
  ...Object.values(deepseekV31Marks),
  dsmlMark,
  ...Object.values(glmMarks),
]);
