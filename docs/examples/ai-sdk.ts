/**
 * Vercel's AI SDK:
 *
 *     SIFT_KEY=sk-sift-... node docs/examples/ai-sdk.ts
 */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { streamText } from 'ai';

const { SIFT_URL = 'http://127.0.0.1:8787', SIFT_KEY = '' } = process.env;
const sift = createOpenAICompatible({
  name: 'sift',
  baseURL: `${SIFT_URL}/v1`,
  apiKey: SIFT_KEY,
  includeUsage: true,
});

const answer = streamText({
  model: sift(process.env['SIFT_MODEL'] ?? 'sift-tiny'),
  prompt: 'Who are you?',
});
for await (const text of answer.textStream) process.stdout.write(text);
console.log(`\n${JSON.stringify(await answer.usage)}`);
