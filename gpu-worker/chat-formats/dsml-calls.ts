/**
 * Tool calls in the output of DeepSeek-V3.2:
 *
 *     text
 *
 *     <｜DSML｜function_calls>
 *     <｜DSML｜invoke name="NAME">
 *     <｜DSML｜parameter name="KEY" string="true">TEXT</｜DSML｜parameter>
 *     <｜DSML｜parameter name="KEY" string="false">JSON</｜DSML｜parameter>
 *     </｜DSML｜invoke>
 *     </｜DSML｜function_calls>
 */
import { dsmlMark } from '../tokenizer/call-marks.ts';
import type { CallFrame } from './call-grammar.ts';
import type { TaggedForm } from './tagged-calls.ts';

const blockBegin = `<${dsmlMark}function_calls>`;
const blockEnd = `</${dsmlMark}function_calls>`;
const callBegin = `<${dsmlMark}invoke name="`;
const callEnd = `</${dsmlMark}invoke>`;
const parameterBegin = `<${dsmlMark}parameter name="`;
const parameterEnd = `</${dsmlMark}parameter>`;

export const dsmlBlockBegin = blockBegin;
export const dsmlValueEnd = parameterEnd;

export const dsmlForm: TaggedForm = {
  steps: {
    text: {
      // The blank line before a block belongs to it.
      [`\n\n${blockBegin}`]: { to: 'block' },
      [`\n${blockBegin}`]: { to: 'block' },
      [blockBegin]: { to: 'block' },
    },
    block: { [callBegin]: { to: 'name' }, [blockEnd]: { to: 'text' } },
    name: { '">': { to: 'call' } },
    call: { [parameterBegin]: { to: 'key' }, [callEnd]: { to: 'block', ends: true } },
    key: {
      '" string="true">': { to: 'value', types: 'text' },
      '" string="false">': { to: 'value', types: null },
      '">': { to: 'value', types: null },
    },
    value: { [parameterEnd]: { to: 'call' } },
  },
  isName: (written) => !/[\n<>]/.test(written),
  typesOf: () => null,
};

export const dsmlFrame: CallFrame = {
  begin: `\n\n${blockBegin}\n`,
  callBegin: (name) => `${callBegin}${name}">\n`,
  callEnd: `\n${callEnd}`,
  between: '\n',
  end: `\n${blockEnd}`,
  arguments: (marked) => ({
    separator: ['\n'],
    nameBegin: marked(parameterBegin),
    textBegin: ['" string="true">'],
    jsonBegin: ['" string="false">'],
    valueEnd: marked(parameterEnd),
    endText: parameterEnd,
  }),
};
