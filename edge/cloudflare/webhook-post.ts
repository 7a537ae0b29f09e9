/**
 * Posts webhooks from workerd. A name's addresses cannot be seen here: Cloudflare's network leads
 * to public addresses alone, and workerd elsewhere goes by the networks that its settings allow.
 */
import type { PostWebhook } from '../webhooks/sender.ts';

export const postWebhook: PostWebhook = async ({ url, headers, body, signal }) => {
  const answer = await fetch(url, { method: 'POST', headers, body, signal, redirect: 'manual' });
  // The receiver says nothing beside its status that anybody reads.
  await answer.body?.cancel();
  return { status: answer.status, retryAfter: answer.headers.get('retry-after') };
};
