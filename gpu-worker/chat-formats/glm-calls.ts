/**
 * Tool calls in the output of GLM's models:
 *
 *     text<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>...</tool_call>
 *
 * GLM-4.5 puts a line break between the tags. A value is a text as it stands or JSON of any other
 * type: the tool's schema says which.
 */
import { glmMarks } from '../tokenizer/call-marks.ts';
import type { ArgumentTypes } from './argument-types.ts';
import type { CallFrame } from './call-grammar.ts';
import type { TaggedForm } from './tagged-calls.ts';

const { callBegin, callEnd, keyBegin, keyEnd, valueBegin, valueEnd } = glmMarks;

export function glmForm(types: ReadonlyMap<string, ArgumentTypes>): TaggedForm {
  return {
    steps: {
      text: { [`\n${callBegin}`]: { to: 'name' }, [callBegin]: { to: 'name' } },
      name: { [keyBegin]: { to: 'key' }, [callEnd]: { to: 'text', ends: true } },
      key: { [keyEnd]: { to: 'between' } },
      between: { [valueBegin]: { to: 'value' } },
      value: { [valueEnd]: { to: 'call' } },
      call: { [keyBegin]: { to: 'key' }, [callEnd]: { to: 'text', ends: true } },
    },
    isName: (written) => /^\s*[^\s<>]*\s*$/.test(written),
    typesOf(name, key) {
      const known = types.get(name);
      if (known === undefined) return null;
      return Object.hasOwn(known.named, key) ? (known.named[key] ?? null) : known.others;
    },
  };
}

export const glmFrame: CallFrame = {
  begin: '',
  callBegin: (name) => callBegin + name,
  callEnd,
  between: '',
  end: '',
  arguments(marked) {
    const valueStart = marked(keyEnd + valueBegin);
    return {
      separator: [],
      nameBegin: marked(keyBegin),
      textBegin: valueStart,
      jsonBegin: valueStart,
      valueEnd: marked(valueEnd),
      endText: valueEnd,
    };
  },
};
