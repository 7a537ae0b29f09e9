/** The answers of a scripted engine, whichever make it is, and the forms in which makes differ. */

export interface Scenario {
  /** Pieces of reasoning: one event each, one token each. */
  readonly reasoning: readonly string[];
  readonly words: readonly string[];
  readonly calls: readonly {
    readonly id: string;
    readonly name: string;
    /** The arguments in pieces. */
    readonly pieces: readonly string[];
  }[];
  readonly finish: 'stop' | 'length';
  /** The one of the request's stop strings that matched. */
  readonly matchedStop: string | null;
  /** null: the engine does not say. */
  readonly cachedTokens: number | null;
  readonly sendsDone: boolean;
  readonly fault:
    | 'validation'
    | 'overflow'
    /** The end after the words: an error event, a broken connection, or nothing more. */
    | 'error-event'
    | 'death'
    | 'silence'
    | null;
}

export const plainScenario: Scenario = {
  reasoning: [],
  words: ['Hel', 'lo', ' wörld', '!'],
  calls: [],
  finish: 'stop',
  matchedStop: null,
  cachedTokens: 128,
  sendsDone: true,
  fault: null,
};

export const promptTokens = 640;

export function outputTokens({ reasoning, words, calls }: Scenario): number {
  return reasoning.length + words.length + calls.flatMap(({ pieces }) => pieces).length;
}

export interface HttpError {
  readonly status: number;
  readonly body: object;
}

/** The form that one make, in one of its versions, gives to its answers. */
export interface EngineMake {
  readonly name: string;
  /** true if it tells which stop string matched. */
  readonly tellsStop: boolean;
  /** true if it counts reasoning apart. */
  readonly countsReasoning: boolean;
  /** The stream up to its faults and its end, as it is written, `data: ` and all. */
  chat(scenario: Scenario, model: string): { readonly pieces: string[]; readonly end: string[] };
  text(scenario: Scenario, model: string): { readonly pieces: string[]; readonly end: string[] };
  readonly validation: HttpError;
  readonly overflow: HttpError;
  /** An error within a stream, as it is written. */
  readonly streamError: string;
}

export const validationMessage = 'top_k must be at least -1, got -5.';

export function frame(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}
