/**
 * POST /v1/quote: what a request would cost, before it is run. Takes the body of a chat completion
 * or of a completion; holds nothing and asks no worker.
 */
import { billedBlockTokens } from '../../gpu-worker/protocol/usage.ts';
import { costNanoUsd, holdNanoUsd } from '../money.ts';
import { quoteReader } from '../dialects/openai/quote-request.ts';
import type { Services } from '../services.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { authorize } from '../inference/authenticate.ts';
import {
  chainOf,
  promptEstimate,
  prepareRequest,
  tokensIn,
} from '../inference/prepared-request.ts';
import { readBody } from '../bodies/read-body.ts';

export const quote = (services: Services) => async (c: AppContext) => {
  const key = await authorize(c, services, 'inference');
  const { bodyBytesMax: bytesMax } = services.settings;
  const body = await readBody(c, services, { owner: key.tenant, bytesMax });
  const { signal } = c.req.raw;
  const requestId = c.get('requestId');
  const sent = {
    reader: quoteReader.name,
    hashedPath: null,
    tenant: key.tenant,
    requestId,
    signal,
  };
  const { prepared } = await prepareRequest(services, sent, body).finally(body.release);
  const hits = await services.tenant(key.tenant).prefixHits(chainOf(prepared));
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
  return c.json({
    object: 'quote',
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
  });
};
