/** The line of each request in the log: all that an operator asks of one, and no word of it. */
import { expect, test } from 'vitest';
import { accessLog } from '../../../edge/observe/access-log.ts';
import type { EndedRequest } from '../../../edge/observe/ended-request.ts';

const ended: EndedRequest = {
  requestId: 'r1',
  method: 'POST',
  route: '/v1/chat/completions',
  status: 200,
  startedAtMs: 1_000,
  durationMs: 1_234.567,
  stages: { authenticated: 0.2, admitted: 1.04, placed: 21.06, began: 300.26 },
  tenant: 'acme',
  keyId: 'k1',
  model: 'm',
  alias: null,
  stream: true,
  worker: 'w',
  code: null,
  outcome: 'done',
  usage: { inputUncached: 5, inputCached: null, outputText: 7, outputReasoning: 0 },
  heldNanoUsd: 99,
  costNanoUsd: 12,
  predictedCachedBytes: 0,
};

function linesOf(...requests: EndedRequest[]): unknown[] {
  const lines: unknown[] = [];
  const observe = accessLog((level, event, fields) => void lines.push({ level, event, ...fields }));
  for (const request of requests) observe(request);
  return lines;
}

test('a line has what is known, and nothing that is not', () => {
  expect(linesOf(ended)).toEqual([
    {
      level: 'info',
      event: 'request',
      requestId: 'r1',
      method: 'POST',
      route: '/v1/chat/completions',
      status: 200,
      tenant: 'acme',
      keyId: 'k1',
      model: 'm',
      stream: true,
      worker: 'w',
      outcome: 'done',
      inputUncached: 5,
      outputText: 7,
      outputReasoning: 0,
      costNanoUsd: 12,
      queuedMs: 20,
      firstTokenMs: 300.3,
      durationMs: 1234.6,
    },
  ]);
});

test('probes are told only when they are refused', () => {
  const probe = { ...ended, route: '/ready' };
  expect(linesOf(probe)).toEqual([]);
  expect(linesOf({ ...probe, status: 503 })).toHaveLength(1);
});
