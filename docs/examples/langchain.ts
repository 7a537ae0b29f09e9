/**
 * LangChain:
 *
 *     SIFT_KEY=sk-sift-... node docs/examples/langchain.ts
 */
import { ChatOpenAI } from '@langchain/openai';

const { SIFT_URL = 'http://127.0.0.1:8787', SIFT_KEY = '' } = process.env;
const model = new ChatOpenAI({
  model: process.env['SIFT_MODEL'] ?? 'sift-tiny',
  apiKey: SIFT_KEY,
  configuration: { baseURL: `${SIFT_URL}/v1` },
});

const answer = await model.invoke('Who are you?');
console.log(answer.text);
console.log(JSON.stringify(answer.usage_metadata));
