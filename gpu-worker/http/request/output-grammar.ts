/**
 * The grammar of an answer: what `response_format`, `tools` and `tool_choice` ask for, in the
 * tokens of this model. Building one takes milliseconds, and applications repeat theirs, so that
 * they are kept.
 */
import { GrammarLimitError } from '../../grammar/dfa.ts';
import { GrammarBuilder, RecentGrammars } from '../../grammar/grammar.ts';
import type { Grammar } from '../../grammar/grammar.ts';
import { packGrammar } from '../../grammar/packed-grammar.ts';
import type { PackedGrammar } from '../../grammar/packed-grammar.ts';
import { Compilation } from '../../grammar/compilation.ts';
import { JsonWriter, schemaBytesMax } from '../../grammar/json-schema.ts';
import { SchemaError } from '../../grammar/schema-keywords.ts';
import { schemaOfFormat } from '../../protocol/response-format.ts';
import type { ResponseFormat } from '../../protocol/response-format.ts';
import type { Tool } from '../../protocol/messages.ts';
import type { ChatFormat } from '../../chat-formats/chat-format.ts';
import { markCharacter } from '../../chat-formats/deepseek-v31-calls.ts';
import { deepseekV31Marks } from '../../tokenizer/call-marks.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import { ApiError } from '../api-error.ts';

const { callsBegin, callsEnd, callBegin, callEnd, separator } = deepseekV31Marks;

/** Grammars that are kept; the least recently used are forgotten. */
const keptGrammars = { countMax: 64, bytesMax: 64 * 2 ** 20 };

export interface OutputRules {
  readonly format: ResponseFormat | null;
  /** The functions as they were sent: errors name them by their index. */
  readonly tools: readonly Tool[];
  /** A name is the one function that has to be called. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  readonly parallelCalls: boolean;
}

export interface OutputGrammars {
  /** Null where anything may be answered. @throws ApiError 400 naming what can't be kept. */
  of(rules: OutputRules): PackedGrammar | null;
}

export function createOutputGrammars(
  text: { readonly tokenizer: Tokenizer; readonly chatFormat: ChatFormat },
  /** Called often while a schema is compiled. */
  pause: () => void = () => {},
): OutputGrammars {
  const model = { ...text, pause };
  const kept = new RecentGrammars<PackedGrammar>(keptGrammars);
  return {
    of(rules) {
      if (!isConstrained(rules)) return null;
      if (model.tokenizer.endTokens.length === 0) {
        throw new ApiError('unsupported_parameter', 'The model has no token that ends an answer.');
      }
      if (
        rules.tools.length > 0 &&
        !['deepseek-v31', 'deepseek-v3'].includes(model.chatFormat.name)
      ) {
        throw new ApiError('unsupported_parameter', "Calls of 'tools' can't be held to a form.");
      }
      return kept.get(JSON.stringify(rules), () => {
        const grammar = buildGrammar(model, rules);
        return { value: packGrammar(grammar), grammar };
      });
    },
  };
}

function isConstrained({ format, tools, choice, parallelCalls }: OutputRules): boolean {
  if (format !== null && format.type !== 'text') return true;
  if (tools.length === 0) return false;
  return choice !== 'auto' || !parallelCalls || tools.some((tool) => tool.function.strict === true);
}

function buildGrammar(
  model: { tokenizer: Tokenizer; chatFormat: ChatFormat; pause: () => void },
  rules: OutputRules,
): Grammar {
  const { format, tools, choice } = rules;
  const builder = new GrammarBuilder();
  // The model's text is searched for calls: no string of theirs may look like the end of one.
  const compilation = new Compilation({
    escaped: tools.length > 0 ? markCharacter : null,
    pause: model.pause,
  });
  const json = new JsonWriter(builder, compilation);
  const start = builder.node();
  const end = builder.node({ isFinal: true });
  const mustCall = choice !== 'auto';
  const param = mustCall || format === null ? 'tools' : 'response_format';
  return refusing(param, [], () => {
    const calls = builder.node();
    const check = (place: SchemaPlace): void => checkSchema(place, compilation);
    if (tools.length > 0) writeCalls(builder, json, { model, rules, check, from: calls, to: end });
    if (mustCall) builder.skip(start, calls);
    else if (format === null || format.type === 'text') {
      const text = builder.node();
      json.textWithout(start, callsBegin, text);
      builder.skip(text, calls);
      builder.skip(text, end);
    } else {
      writeFormat(json, { format, check, from: start, to: end });
      if (tools.length > 0) builder.skip(start, calls);
    }
    return built(builder, start);
  });
}

type Path = readonly (string | number)[];

/** A schema, and the parameter and the path in it that it stands at. */
interface SchemaPlace {
  readonly schema: unknown;
  readonly param: 'response_format' | 'tools';
  readonly path: Path;
  readonly isStrict: boolean;
}

/** @throws ApiError 400 */
type Check = (place: SchemaPlace) => void;

function writeFormat(
  json: JsonWriter,
  { format, check, from, to }: { format: ResponseFormat; check: Check; from: number; to: number },
): void {
  if (format.type === 'text') return;
  const stated = schemaOfFormat(format);
  if (stated === null) {
    json.object(from, to);
    return;
  }
  check({ ...stated, param: 'response_format' });
  json.schema(from, stated.schema, to, stated);
}

interface CallPlan {
  readonly model: { readonly tokenizer: Tokenizer; readonly chatFormat: ChatFormat };
  readonly rules: OutputRules;
  readonly check: Check;
  readonly from: number;
  readonly to: number;
}

/** One call after the other, in the syntax of tool-calls.ts. */
function writeCalls(builder: GrammarBuilder, json: JsonWriter, plan: CallPlan): void {
  const { model, rules, check, from, to } = plan;
  const { tools, choice, parallelCalls } = rules;
  const token = (before: number, content: string, after: number): void => {
    const id = model.tokenizer.controlToken(content);
    if (id !== null) builder.token(before, id, after);
  };
  const text = (before: number, written: string): number => {
    const after = builder.node();
    json.text(before, written, after);
    return after;
  };
  const isFenced = model.chatFormat.name === 'deepseek-v3';
  const [next, name, called, done] = [
    builder.node(),
    builder.node(),
    builder.node(),
    builder.node(),
  ];
  token(from, callsBegin, next);
  token(next, callBegin, name);
  tools.forEach((tool, index) => {
    const { name: toolName } = tool.function;
    if (typeof choice === 'object' && choice.name !== toolName) return;
    const separated = builder.node();
    token(text(name, isFenced ? 'function' : toolName), separator, separated);
    const args = isFenced ? text(separated, `${toolName}\n\`\`\`json\n`) : separated;
    const written = builder.node();
    const mustCall = choice !== 'auto';
    writeArguments(json, { tool, index, mustCall, check, from: args, to: written });
    builder.skip(isFenced ? text(written, '\n```') : written, called);
  });
  token(called, callEnd, done);
  token(done, callsEnd, to);
  if (!parallelCalls || typeof choice === 'object') return;
  builder.skip(isFenced ? text(done, '\n') : done, next);
}

/**
 * Holds the arguments of a strict function, and of one that has to be called, to its schema. The
 * schema of a function that is not strict may say more than can be kept; its arguments are then any
 * object.
 */
function writeArguments(
  json: JsonWriter,
  plan: {
    readonly tool: Tool;
    readonly index: number;
    readonly mustCall: boolean;
    readonly check: Check;
    readonly from: number;
    readonly to: number;
  },
): void {
  const { tool, index, mustCall, check, from, to } = plan;
  const { strict, parameters } = tool.function;
  if (!parameters || Object.keys(parameters).length === 0) {
    // OpenAI's: a function without parameters takes none.
    if (strict || mustCall) json.text(from, '{}', to);
    else json.object(from, to);
    return;
  }
  if (strict) {
    const path = [index, 'function', 'parameters'];
    if (parameters.type !== 'object' && !Object.hasOwn(parameters, '$ref')) {
      throw refusal('tools', [...path, 'type'], 'invalid_value', "expected 'object'");
    }
    check({ schema: parameters, param: 'tools', path, isStrict: true });
    json.schema(from, parameters, to);
  } else if (mustCall && canBeKept(parameters, check)) {
    json.schema(from, parameters, to, { isStrict: false });
  } else json.object(from, to);
}

/**
 * Compiles the schema by itself, so that what is wrong with it is told of it. @throws ApiError 400
 */
function checkSchema(
  { schema, param, path, isStrict }: SchemaPlace,
  compilation: Compilation,
): void {
  const bytes = Buffer.byteLength(JSON.stringify(schema));
  if (bytes > schemaBytesMax) {
    const reason = `${bytes} bytes are more than the ${schemaBytesMax} of a schema`;
    throw refusal(param, path, 'invalid_value', reason);
  }
  refusing(param, path, () => {
    const builder = new GrammarBuilder();
    const [start, end] = [builder.node(), builder.node({ isFinal: true })];
    new JsonWriter(builder, compilation).schema(start, schema, end, { isStrict });
    built(builder, start);
  });
}

function canBeKept(schema: Readonly<Record<string, unknown>>, check: Check): boolean {
  try {
    if (schema.type !== 'object') return false;
    check({ schema, param: 'tools', path: [], isStrict: false });
    return true;
  } catch (error) {
    if (error instanceof ApiError) return false;
    throw error;
  }
}

function built(builder: GrammarBuilder, start: number): Grammar {
  const grammar = builder.build(start);
  if (grammar === null) throw new SchemaError('invalid', [], 'no value fits it');
  if (grammar === 'endless') {
    throw new SchemaError('invalid', [], 'a value would have to begin with itself');
  }
  return grammar;
}

/** Runs `compile` and makes its complaints the API's. @throws ApiError 400 */
function refusing<Result>(param: string, path: Path, compile: () => Result): Result {
  try {
    return compile();
  } catch (error) {
    if (error instanceof SchemaError) {
      const code = error.kind === 'unsupported' ? 'unsupported_parameter' : 'invalid_value';
      throw refusal(param, [...path, ...error.path], code, error.message);
    }
    if (error instanceof GrammarLimitError) {
      throw refusal(param, path, 'invalid_value', error.message);
    }
    throw error;
  }
}

function refusal(
  param: string,
  path: Path,
  code: 'unsupported_parameter' | 'invalid_value',
  reason: string,
): ApiError {
  const name = path.reduce<string>(
    (before, part) => (typeof part === 'number' ? `${before}[${part}]` : `${before}.${part}`),
    param,
  );
  const message =
    code === 'unsupported_parameter'
      ? `'${name}' is not supported: ${reason}.`
      : `Invalid '${name}': ${reason}.`;
  return new ApiError(code, message, { param: name });
}
