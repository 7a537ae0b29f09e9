/**
 * Examples of answers for the reference. The code that answers writes them, so that they cannot
 * differ from an answer. The receipt that the reference shows is of the same request.
 */
import type { InferenceRoute } from '../dialects/dialect.ts';
import type { ModelRecord } from '../directory/directory-contract.ts';
import type { Chunk } from '../engines/chunk.ts';
import { receiptExample } from '../receipts/examples.ts';

const { model, request_id: requestId, tokens, ...receipt } = receiptExample.receipt;
const text = 'I am sift.';

const bill = {
  usage: {
    inputUncached: tokens.input,
    inputCached: tokens.cached_input,
    outputText: tokens.output_text,
    outputReasoning: tokens.output_reasoning,
  },
  costNanoUsd: receipt.cost_nano_usd,
  cacheMissReason: null,
};

export const promptTokensExample = tokens.input + (tokens.cached_input ?? 0);

export const modelExample: ModelRecord = {
  id: model,
  contextLength: 131_072,
  revision: 'r1',
  tokenizer: 'sift-1',
  ownedBy: 'operator',
  createdAtMs: 1_764_547_200_000,
};

/** The answer to the first example of the route's requests, whole and as a stream. */
export function answerExamples(route: InferenceRoute): {
  readonly whole: object;
  readonly events: string;
} {
  const [body] = route.requestExamples;
  const request = route.parse(body, { storesUnasked: false, earlier: null });
  const format = route.format(request.answer, { requestId, model });
  const chunk = chunkOf(request.workerPath);
  const builder = format.builder();
  builder.add(chunk);
  const encoder = format.encoder();
  return {
    // Some of its lists are written as JSON when it is sent, and are no lists before.
    whole: JSON.parse(JSON.stringify(builder.finish(bill))) as object,
    events: encoder.chunk(chunk, bill.usage) + encoder.end(bill),
  };
}

function chunkOf(workerPath: '/v1/chat/completions' | '/v1/completions'): Chunk {
  const isChat = workerPath === '/v1/chat/completions';
  const piece = isChat ? { delta: { role: 'assistant' as const, content: text } } : { text };
  return {
    object: isChat ? 'chat.completion.chunk' : 'text_completion',
    created: Math.floor(Date.parse(receipt.admitted_at) / 1000),
    choices: [{ index: 0, ...piece, logprobs: null, finish_reason: 'stop' }],
  };
}
