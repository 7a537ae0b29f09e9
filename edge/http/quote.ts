/**
 * POST /v1/quote: what a request would cost, before it is run. Takes the body of a chat completion,
 * a completion or a response; holds nothing and asks no worker.
 */
import { z } from 'zod';
import { count, nanoUsd } from '../dialects/quantities.ts';
import { keyEndpoint } from './key-endpoint.ts';
import { billedBlockTokens } from '../../gpu-worker/protocol/usage.ts';
import { costNanoUsd, holdNanoUsd } from '../money.ts';
import { quoteReader, quoteRequestSchema } from '../dialects/quote-request.ts';
import {
  chainOf,
  promptEstimate,
  prepareRequest,
  tokensIn,
} from '../inference/prepared-request.ts';
import { cacheMissReasonSchema } from '../dialects/cache-miss-reason.ts';
import { allowedModels } from '../inference/allowed-models.ts';
import { predictMiss } from '../inference/cache-miss.ts';
import { readBody } from '../bodies/read-body.ts';

const example = {
  object: 'quote',
  model: 'sift-tiny',
  prices: { cached_input: 28_000_000, input: 280_000_000, output: 420_000_000 },
  max_cost_nano_usd: 2_028_320,
  prompt_tokens_max: 1_100,
  output_tokens_max: 4_096,
  prompt_tokens_estimate: 275,
  cached_tokens_estimate: 192,
  input_cost_estimate_nano_usd: 28_616,
  cache_miss_reason: {
    type: 'new_messages',
    part: 'message',
    message: 2,
    character: 0,
    character_end: 16,
  },
};

export const quoteSchema = z
  .object({
    object: z.literal('quote'),
    model: z.string(),
    prices: z
      .object({ cached_input: nanoUsd, input: nanoUsd, output: nanoUsd })
      .describe('In nano-USD per 1,000,000 tokens, as in force now.'),
    max_cost_nano_usd: nanoUsd.describe('No request costs more; this much is held while it runs.'),
    prompt_tokens_max: count,
    output_tokens_max: count,
    prompt_tokens_estimate: count,
    cached_tokens_estimate: count.describe(
      'What the prefix index expects a worker to have cached.',
    ),
    input_cost_estimate_nano_usd: nanoUsd,
    cache_miss_reason: cacheMissReasonSchema,
  })
  .meta({ examples: [example] });

export const quote = keyEndpoint(
  {
    method: 'post',
    path: '/v1/quote',
    summary: 'Price of a request',
    description:
      'Takes the body of a chat completion, a completion or a response and runs nothing: what the ' +
      'request may cost at most, and how much of its prompt is probably cached.',
    scope: 'inference',
    body: quoteRequestSchema,
    answer: quoteSchema,
  },
  async ({ c, services, key }) => {
    const allowed = await allowedModels(services, key);
    const { bodyBytesMax: bytesMax } = services.settings;
    const body = await readBody(c, services, { owner: key.tenant, bytesMax });
    const { signal } = c.req.raw;
    const requestId = c.get('requestId');
    const sent = {
      reader: quoteReader.name,
      hashedPath: null,
      tenant: key.tenant,
      key,
      waitMsMax: null,
      requestId,
      signal,
      allowed,
    };
    const { prepared } = await prepareRequest(services, sent, body).finally(body.release);
    const tenant = services.tenant(key.tenant);
    const { trail } = prepared;
    const [hits, seenPrompt] = await Promise.all([
      tenant.prefixHits(chainOf(prepared)),
      trail && tenant.seenPrompt(trail.marks),
    ]);
    const { price, promptTokensMax, outputTokensMax } = prepared;
    // No worker takes more than its context, however long the text is.
    const prompt = Math.min(promptEstimate(prepared), promptTokensMax);
    const hit = tokensIn(Math.max(0, ...hits.map(({ bytes }) => bytes)));
    const cached = Math.min(prompt, hit - (hit % billedBlockTokens));
    const input = {
      inputUncached: prompt - cached,
      inputCached: cached,
      outputText: 0,
      outputReasoning: 0,
    };
    return {
      object: 'quote' as const,
      model: prepared.model.id,
      prices: {
        cached_input: price.inputCached,
        input: price.inputUncached,
        output: price.output,
      },
      max_cost_nano_usd: holdNanoUsd({ promptTokensMax, outputTokensMax }, price),
      prompt_tokens_max: promptTokensMax,
      output_tokens_max: outputTokensMax,
      prompt_tokens_estimate: prompt,
      cached_tokens_estimate: cached,
      input_cost_estimate_nano_usd: costNanoUsd(input, price),
      cache_miss_reason: predictMiss(
        prepared,
        { prefixHits: hits, seenPrompt },
        { prompt, cached },
      ),
    };
  },
);
