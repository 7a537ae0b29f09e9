/**
 * POST /v1/quote: what a request would cost, before it is run. Takes the body of a chat completion
 * or of a completion; holds nothing and asks no worker.
 */
import { billedBlockTokens } from '../../gpu-worker/protocol.ts';
import { costNanoUsd, holdNanoUsd } from '../money.ts';
import type { Services } from '../services.ts';
import type { AppContext } from './app-env.ts';
import { authorize } from './authenticate.ts';
import { parseChatRequest, parseTextRequest } from './openai-requests.ts';
import { prepareOrder, promptEstimate, tokensIn, type Order } from './order.ts';
import { readJson } from './read-body.ts';

export const quote = (services: Services) => async (c: AppContext) => {
  const key = await authorize(c, services, 'inference');
  const { bodyBytesMax: bytesMax } = services.settings;
  const { json, release } = await readJson(c, services, { owner: key.tenant, bytesMax });
  const asked = { tenant: key.tenant, requestId: c.get('requestId') };
  const order = await orderOf(services, json, asked).finally(release);
  const hits = await services.tenant(key.tenant).prefixHits(order.chain);
  const { price, promptTokensMax, outputTokensMax } = order;
  // No worker takes more than its context, however long the text is.
  const prompt = Math.min(promptEstimate(order), promptTokensMax);
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
    model: order.model.id,
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

async function orderOf(
  services: Services,
  json: unknown,
  asked: { readonly tenant: string; readonly requestId: string },
): Promise<Order> {
  const isChat = typeof json === 'object' && json !== null && !('prompt' in json);
  const request = isChat ? parseChatRequest(json) : parseTextRequest(json);
  return prepareOrder(services, { ...asked, request });
}
