/**
 * One request while it is in flight: its choices, its running usage, and the events about it. The
 * engine says what happened to it; it never asks for anything.
 */
import { at } from '../at.ts';
import type { Constraint, Constraints } from './constraint.ts';
import { ChoiceOutput } from './output.ts';
import type { OutputPiece, TokenText } from './output.ts';
import { rowLogprobs } from './row-logprobs.ts';
import type {
  EngineError,
  EngineEvent,
  EngineRequest,
  EngineUsage,
  FinishReason,
  TokenLogprob,
} from './request.ts';
import { readsHistory } from './sampler.ts';
import type { TokenHistory } from './sampler.ts';
import { Sequence } from './sequence.ts';

export interface Choice {
  readonly sequence: Sequence;
  readonly output: ChoiceOutput;
  /** Made for the first output token, where penalties ask for it. */
  history: TokenHistory | null;
  /** The constraint that the request's grammar, if it has one, sets. */
  readonly constraint: Constraint | null;
  isFinished: boolean;
}

export interface GenerationOptions {
  readonly tokenText: TokenText;
  readonly endTokens: readonly number[];
  readonly constraints: Constraints;
  /** Serial of the first choice; the others follow. */
  readonly serial: number;
  /** The request's own seed, or one drawn for it. */
  readonly seed: number;
  /** The engine's time of its submission. */
  readonly submittedMs: number;
}

export class Generation {
  readonly request: EngineRequest;
  readonly choices: readonly Choice[];
  readonly seed: number;
  /** True once the prompt event was sent. */
  promptDone = false;

  readonly #tokenText: TokenText;
  readonly #promptLogprobs: (TokenLogprob | null)[] | null;
  /** Distinct tokens of the prompt, once they were asked for. */
  #promptSet: Int32Array | null = null;
  readonly #submittedMs: number;
  #queuedMs = 0;
  #outputTokens = 0;
  #reasoningTokens = 0;

  constructor(request: EngineRequest, options: GenerationOptions) {
    this.request = request;
    this.seed = options.seed;
    this.#submittedMs = options.submittedMs;
    this.#tokenText = options.tokenText;
    this.#promptLogprobs = request.promptLogprobs === null ? null : [null];
    this.choices = Array.from({ length: request.choices }, (_, choice) => ({
      sequence: new Sequence(request, { choice, serial: options.serial + choice }),
      output: new ChoiceOutput(request, options),
      history: null,
      constraint: options.constraints.start(request),
      isFinished: false,
    }));
  }

  get isFinished(): boolean {
    return this.choices.every((choice) => choice.isFinished);
  }

  choiceOf(sequence: Sequence): Choice {
    return at(this.choices, sequence.choice);
  }

  /** Gives the history that the penalties of this choice look at; null where it has none. */
  historyOf(choice: Choice): TokenHistory | null {
    const { sampling, promptTokens } = this.request;
    if (!readsHistory(sampling)) return null;
    this.#promptSet ??= Int32Array.from(new Set(promptTokens));
    choice.history ??= { prompt: this.#promptSet, output: new Map() };
    return choice.history;
  }

  usage(): EngineUsage {
    const { sequence } = at(this.choices, 0);
    return {
      promptTokens: sequence.promptReached,
      // A sequence that never ran has used none.
      cachedTokens: sequence.cachedTokens ?? 0,
      outputTokens: this.#outputTokens,
      reasoningTokens: this.#reasoningTokens,
    };
  }

  /** Scores the next prompt token by the logits of the row before it; false if they are none. */
  scorePrompt(logits: Float32Array): boolean {
    const { request } = this;
    const scores = this.#promptLogprobs;
    if (scores === null || request.promptLogprobs === null) return true;
    const token = at(request.promptTokens, scores.length);
    const scored = this.#logprobOf(logits, token, request.promptLogprobs);
    if (scored !== null) scores.push(scored);
    return scored !== null;
  }

  /**
   * The log-probability of an output token, if the request asks for it, in the model's own logits.
   */
  tokenLogprob(logits: Float32Array, token: number): TokenLogprob | null {
    const { logprobs } = this.request;
    return logprobs === null ? null : this.#logprobOf(logits, token, logprobs);
  }

  /** Its first step begins. */
  begin(nowMs: number): void {
    this.#queuedMs = nowMs - this.#submittedMs;
  }

  prefillEvent(): EngineEvent {
    return { kind: 'prefill', id: this.request.id, usage: this.usage() };
  }

  promptEvent(): EngineEvent {
    this.promptDone = true;
    const { id } = this.request;
    const logprobs = this.#promptLogprobs;
    return { kind: 'prompt', id, queuedMs: this.#queuedMs, usage: this.usage(), logprobs };
  }

  /** Takes the next token of a choice; the piece says whether the choice is finished by it. */
  take(choice: Choice, token: number, logprob: TokenLogprob | null): [EngineEvent, OutputPiece] {
    const { request } = this;
    choice.sequence.append(token);
    if (choice.history !== null) {
      choice.history.output.set(token, (choice.history.output.get(token) ?? 0) + 1);
    }
    choice.constraint?.take(token);
    const piece = choice.output.push(token);
    this.#outputTokens++;
    if (piece.channel === 'reasoning') this.#reasoningTokens++;
    const event: EngineEvent = {
      kind: 'output',
      id: request.id,
      choice: choice.sequence.choice,
      channel: piece.channel,
      text: piece.text,
      tokens: [token],
      logprobs: logprob === null ? null : [logprob],
      usage: this.usage(),
    };
    return [event, piece];
  }

  finishedEvent(
    choice: Choice,
    finish: { reason: FinishReason; stopMatch: string | number | null },
  ): EngineEvent {
    choice.isFinished = true;
    const { id } = this.request;
    return {
      kind: 'finished',
      id,
      choice: choice.sequence.choice,
      reason: finish.reason,
      stopMatch: finish.stopMatch,
      usage: this.usage(),
    };
  }

  endEvent(error: EngineError | null): EngineEvent {
    return { kind: 'end', id: this.request.id, usage: this.usage(), error };
  }

  #logprobOf(logits: Float32Array, token: number, topCount: number): TokenLogprob | null {
    const row = rowLogprobs(logits, { token, topCount });
    if (row === null) return null;
    const bytes = (id: number): readonly number[] => [...this.#tokenText.tokenBytes(id)];
    return {
      token,
      bytes: bytes(token),
      logprob: row.logprob,
      top: row.top.map((each) => ({ ...each, bytes: bytes(each.token) })),
    };
  }
}
