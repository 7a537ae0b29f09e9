/**
 * Anthropic's client, streaming:
 *
 *     SIFT_KEY=sk-sift-... node docs/examples/anthropic.ts
 */
import Anthropic from '@anthropic-ai/sdk';

const { SIFT_URL = 'http://127.0.0.1:8787', SIFT_KEY, SIFT_MODEL = 'sift-tiny' } = process.env;
const client = new Anthropic({ baseURL: `${SIFT_URL}/anthropic`, apiKey: SIFT_KEY });

const stream = client.messages.stream({
  model: SIFT_MODEL,
  max_tokens: 256,
  messages: [{ role: 'user', content: 'Who are you?' }],
});
stream.on('text', (text) => process.stdout.write(text));
const { usage } = await stream.finalMessage();
console.log(`\n${JSON.stringify(usage)}`);
