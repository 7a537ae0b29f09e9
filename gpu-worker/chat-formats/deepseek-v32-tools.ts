/** DeepSeek-V3.2 is told of its tools in words that are part of the format, to the letter. */
import { dsmlMark } from '../tokenizer/call-marks.ts';

/** Stands before the functions, of which each takes one line. */
export const toolsBegin = `## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<${dsmlMark}function_calls>" block like the following as part of your reply to the user:
<${dsmlMark}function_calls>
<${dsmlMark}invoke name="$FUNCTION_NAME">
<${dsmlMark}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</${dsmlMark}parameter>
...
</${dsmlMark}invoke>
<${dsmlMark}invoke name="$FUNCTION_NAME2">
...
</${dsmlMark}invoke>
</${dsmlMark}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<${dsmlMark}function_calls>
...
</${dsmlMark}function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
`;

export const toolsEnd = '</functions>\n';
