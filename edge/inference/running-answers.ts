/**
 * The answers under an Idempotency-Key that are being made in this process. One outlives the client
 * that asked for it, and whoever sends the same request again waits for it. It ends early only when
 * nobody has waited for it for a while, or when the process ends.
 */
import { strict as assert } from 'node:assert';
import { ApiError } from '../errors.ts';
import { unknownMsMax } from '../reconcile/reconcile-holds.ts';
import type { RunningAnswer, RunningAnswers, WholeAnswer } from './running-answers-contract.ts';
import { createEventLog } from '../relay/event-log.ts';

/** This much of a running stream is kept for clients that begin at its beginning. */
const logCharactersMax = 4 * 1024 * 1024;
const clientsMax = 64;
/** An answer that nobody waits for ends before its hold could be voided. */
const abandonedAgeMsMax = unknownMsMax - 60_000;

/** One of the answers, as the registry itself needs it. */
interface Entry {
  readonly answer: RunningAnswer;
  readonly stopped: () => boolean;
  stopWhenAbandoned(): void;
}

export function createRunningAnswers(options: {
  readonly clock: { nowMs(): number };
  /** An answer that nobody waits for runs on for this long. */
  readonly runOnMs: number;
  /** The characters kept of all answers together: each has an even share. */
  readonly charactersMax: number;
}): RunningAnswers {
  const { clock, charactersMax } = options;
  const running = new Map<string, Entry>();
  let runOnMs = options.runOnMs;

  const open = (requestId: string): Entry => {
    const openedAtMs = clock.nowMs();
    const whole = Promise.withResolvers<WholeAnswer>();
    // Those who wait for it see it fail; there may be nobody.
    whole.promise.catch(() => {});
    let clients = 0;
    let stopped = false;
    let stop: (() => void) | null = null;
    let timer: ReturnType<typeof setTimeout> | undefined;

    const stopWhenAbandoned = (): void => {
      clearTimeout(timer);
      if (stop === null || stopped || clients > 0) return;
      const ageLeftMs = openedAtMs + abandonedAgeMsMax - clock.nowMs();
      // A clock that was set back makes no answer younger than new.
      const leftMs = Math.min(runOnMs, ageLeftMs, abandonedAgeMsMax);
      if (leftMs <= 0) stop();
      else timer = setTimeout(stop, leftMs);
    };

    const answer: RunningAnswer = {
      whole,
      accepted: Promise.withResolvers<void>(),
      log: createEventLog(() => Math.min(logCharactersMax, charactersMax / running.size)),
      join() {
        if (clients === clientsMax) throw tooManyClients();
        clients++;
        clearTimeout(timer);
        let here = true;
        return () => {
          if (here) clients--;
          here = false;
          stopWhenAbandoned();
        };
      },
      runs(stopIt) {
        stop = () => {
          stopped = true;
          stopIt();
        };
        stopWhenAbandoned();
      },
      over() {
        stop = null;
        clearTimeout(timer);
        running.delete(requestId);
      },
    };
    return { answer, stopped: () => stopped, stopWhenAbandoned };
  };

  return {
    claim(requestId) {
      assert(!running.has(requestId), 'a request has one answer');
      const entry = open(requestId);
      running.set(requestId, entry);
      return entry.answer;
    },
    find(requestId) {
      const entry = running.get(requestId);
      return entry === undefined || entry.stopped() ? null : entry.answer;
    },
    isSettling: (requestId) => running.get(requestId)?.stopped() ?? false,
    stopAbandoned() {
      runOnMs = 0;
      for (const entry of running.values()) entry.stopWhenAbandoned();
    },
  };
}

function tooManyClients(): ApiError {
  return new ApiError(
    'idempotency_key_in_use',
    `${clientsMax} clients wait for the answer under this Idempotency-Key already.`,
    { headers: { 'retry-after': '1' } },
  );
}
