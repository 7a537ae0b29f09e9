/**
 * The grammar of an answer: what `response_format`, `tools` and `tool_choice` ask for, in the
 * tokens of this model. Building one takes milliseconds, and applications repeat theirs, so that
 * they are kept.
 */
import { strict as assert } from 'node:assert';
import { markedBy } from '../../chat-formats/call-grammar.ts';
import type { CallableFunction } from '../../chat-formats/call-grammar.ts';
import type { ChatFormat } from '../../chat-formats/chat-format.ts';
import { GrammarLimitError } from '../../grammar/dfa.ts';
import { GrammarBuilder, RecentGrammars } from '../../grammar/grammar.ts';
import type { Grammar } from '../../grammar/grammar.ts';
import { packGrammar } from '../../grammar/packed-grammar.ts';
import type { PackedGrammar } from '../../grammar/packed-grammar.ts';
import { Compilation } from '../../grammar/compilation.ts';
import { JsonWriter, schemaBytesMax } from '../../grammar/json-schema.ts';
import { SchemaError } from '../../grammar/schema-keywords.ts';
import type { TaggedSyntax } from '../../grammar/tagged-members.ts';
import { schemaOfFormat } from '../../protocol/response-format.ts';
import type { ResponseFormat } from '../../protocol/response-format.ts';
import type { Tool } from '../../protocol/messages.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import { ApiError } from '../api-error.ts';

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

interface TextOfModel {
  readonly tokenizer: Tokenizer;
  readonly chatFormat: ChatFormat;
}

export function createOutputGrammars(
  text: TextOfModel,
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
      return kept.get(JSON.stringify(rules), () => {
        const grammar = buildGrammar(model, rules);
        return { value: packGrammar(grammar, beginTokens(model, rules)), grammar };
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
  model: TextOfModel & { readonly pause: () => void },
  rules: OutputRules,
): Grammar {
  const { format, tools, choice } = rules;
  const { calls } = model.chatFormat;
  const builder = new GrammarBuilder();
  // The model's text is searched for calls: no string of theirs may look like the end of one.
  const compilation = new Compilation({
    escaped: tools.length > 0 ? (calls?.escaped ?? null) : null,
    pause: model.pause,
  });
  const json = new JsonWriter(builder, compilation);
  const start = builder.node();
  const end = builder.node({ isFinal: true });
  const mustCall = choice !== 'auto';
  const param = mustCall || format === null ? 'tools' : 'response_format';
  return refusing(param, [], () => {
    const called = builder.node();
    const check = (place: SchemaPlace): void => checkSchema(place, compilation);
    if (tools.length > 0) writeTools({ model, builder, json, rules, check, from: called, to: end });
    if (mustCall) builder.skip(start, called);
    else if (format === null || format.type === 'text') {
      const text = builder.node();
      if (calls !== null) json.textWithout(start, calls.begin, text);
      builder.skip(text, called);
      builder.skip(text, end);
    } else {
      writeFormat(json, { format, check, from: start, to: end });
      if (tools.length > 0) builder.skip(start, called);
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

interface ToolsPlan {
  readonly model: TextOfModel;
  readonly builder: GrammarBuilder;
  readonly json: JsonWriter;
  readonly rules: OutputRules;
  readonly check: Check;
  readonly from: number;
  readonly to: number;
}

/** Calls of the functions that may be called, in the syntax of the model's chat format. */
function writeTools({ model, rules, check, json, ...plan }: ToolsPlan): void {
  const { tools, choice, parallelCalls } = rules;
  const { calls } = model.chatFormat;
  assert(calls !== null, 'a model that calls no tools is offered none');
  const mustCall = choice !== 'auto';
  const functions = tools.flatMap((tool, index): CallableFunction[] => {
    const { name } = tool.function;
    if (typeof choice === 'object' && choice.name !== name) return [];
    const writeArguments: CallableFunction['writeArguments'] = (from, to, syntax) =>
      writeCallArguments(json, { tool, index, mustCall, check, syntax, from, to });
    return [{ name, writeArguments }];
  });
  calls.writeCalls({
    ...plan,
    json,
    marked: markedBy(model.tokenizer, calls.marks),
    functions,
    isSingle: !parallelCalls || typeof choice === 'object',
  });
}

/** The tokens that calls begin with: reasoning before an answer of a given form has none. */
function beginTokens({ tokenizer, chatFormat }: TextOfModel, { tools }: OutputRules): number[] {
  if (tools.length === 0 || chatFormat.calls === null) return [];
  const marked = markedBy(tokenizer, chatFormat.calls.marks)(chatFormat.calls.begin);
  return marked.filter((piece) => typeof piece === 'number');
}

/**
 * Holds the arguments of a strict function, and of one that has to be called, to its schema. The
 * schema of a function that is not strict may say more than can be kept; its arguments are then any
 * object.
 */
function writeCallArguments(
  json: JsonWriter,
  plan: {
    readonly tool: Tool;
    readonly index: number;
    readonly mustCall: boolean;
    readonly check: Check;
    readonly syntax: TaggedSyntax | null;
    readonly from: number;
    readonly to: number;
  },
): void {
  const { tool, index, mustCall, check, syntax, from, to } = plan;
  const { strict, parameters } = tool.function;
  const write = (schema: object, isStrict: boolean): void =>
    syntax === null
      ? json.schema(from, schema, to, { isStrict })
      : json.members(from, schema, to, { syntax, isStrict });
  if (!parameters || Object.keys(parameters).length === 0) {
    // OpenAI's: a function without parameters takes none.
    return write(strict || mustCall ? noArguments : anyArguments, true);
  }
  if (strict) {
    const path = [index, 'function', 'parameters'];
    if (parameters.type !== 'object' && !Object.hasOwn(parameters, '$ref')) {
      throw refusal('tools', [...path, 'type'], 'invalid_value', "expected 'object'");
    }
    check({ schema: parameters, param: 'tools', path, isStrict: true });
    write(parameters, true);
  } else if (mustCall && canBeKept(parameters, check)) write(parameters, false);
  else write(anyArguments, true);
}

const anyArguments = { type: 'object' } as const;
const noArguments = { type: 'object', additionalProperties: false } as const;

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
