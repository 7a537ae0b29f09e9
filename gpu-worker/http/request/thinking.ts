/**
 * A request's wish for thinking, in the words that clients know: DeepSeek's and Anthropic's
 * `thinking`, OpenAI's `reasoning_effort`, and the variables of chat templates.
 */
import type { ChatFormat } from '../../chat-formats/chat-format.ts';
import type { TokenizeRequest } from '../../protocol/requests.ts';
import { ApiError } from '../api-error.ts';

export interface Thinking {
  readonly wanted: boolean;
  /** The parameter that insists on it; null where none does. */
  readonly param: string | null;
  /** Variables that the format's template may read. */
  readonly variables: Readonly<Record<string, unknown>>;
}

type Rules = Pick<ChatFormat, 'thinksByDefault' | 'efforts'>;

/** Says of whether to think, from the one that decides down. */
interface Said {
  readonly wanted: boolean | null | undefined;
  readonly param: string;
}

/** @throws ApiError 400 for parameters that contradict each other */
export function readThinking(format: Rules, body: TokenizeRequest): Thinking {
  const { thinking, chat_template_kwargs: kwargs } = body;
  const said: readonly Said[] = [
    { wanted: thinking ? thinking.type !== 'disabled' : null, param: 'thinking' },
    { wanted: kwargs?.thinking, param: 'chat_template_kwargs.thinking' },
    { wanted: kwargs?.enable_thinking, param: 'chat_template_kwargs.enable_thinking' },
  ];
  const stated = said.filter(({ wanted }) => typeof wanted === 'boolean');
  const [first] = stated;
  const other = stated.find(({ wanted }) => wanted !== first?.wanted);
  if (first && other) throw contradiction(first.param, other.param);
  const effort = effortOf(body);
  const byEffort = effort === null ? null : effort !== 'none';
  const isHint = thinking?.type === 'adaptive';
  const decided = first?.param ?? (effort === null ? null : 'reasoning_effort');
  const wanted = first?.wanted ?? byEffort ?? format.thinksByDefault;
  return {
    wanted,
    param: isHint ? null : decided,
    variables: {
      ...(typeof kwargs?.clear_thinking === 'boolean' && { clear_thinking: kwargs.clear_thinking }),
      ...(wanted && effort !== null && depth(effort, format.efforts)),
    },
  };
}

/** Both names of it say the same or one of them nothing. @throws ApiError 400 */
function effortOf({ reasoning_effort: effort, chat_template_kwargs: kwargs }: TokenizeRequest) {
  const inTemplate = kwargs?.reasoning_effort;
  if (effort && inTemplate && effort !== inTemplate) {
    throw contradiction('reasoning_effort', 'chat_template_kwargs.reasoning_effort');
  }
  return effort ?? inTemplate ?? null;
}

function contradiction(param: string, other: string): ApiError {
  const [name = other] = other.split('.');
  return new ApiError('invalid_value', `'${param}' contradicts '${name}'.`, { param });
}

/** DeepSeek's reading of OpenAI's words. */
const depths = {
  none: 'low',
  minimal: 'low',
  low: 'low',
  medium: 'high',
  high: 'high',
  xhigh: 'high',
  max: 'max',
  ultra: 'max',
} as const;

/** The nearest of the depths that the template knows; `high` is in all of them. */
function depth(effort: keyof typeof depths, known: readonly string[]): object {
  if (known.length === 0) return {};
  const asked = depths[effort];
  return { reasoning_effort: known.includes(asked) ? asked : 'high' };
}
