/**
 * OpenAI's client, streaming:
 *
 *     SIFT_KEY=sk-sift-... node docs/examples/openai.ts
 */
import OpenAI from 'openai';

const { SIFT_URL = 'http://127.0.0.1:8787', SIFT_KEY, SIFT_MODEL = 'sift-tiny' } = process.env;
const client = new OpenAI({ baseURL: `${SIFT_URL}/v1`, apiKey: SIFT_KEY });

const stream = await client.chat.completions.create({
  model: SIFT_MODEL,
  messages: [{ role: 'user', content: 'Who are you?' }],
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? '');
  // The last chunk has no choices: it tells what was used, and `cost_nano_usd`.
  if (chunk.usage) console.log(`\n${JSON.stringify(chunk.usage)}`);
}
