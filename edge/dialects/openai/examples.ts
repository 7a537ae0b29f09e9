/** Requests of OpenAI's routes as the reference shows them. */
const model = 'sift-tiny';

export const chatRequestExamples = [
  {
    model,
    messages: [
      { role: 'system', content: 'You are sift. Answer in one sentence.' },
      { role: 'user', content: 'Who are you?' },
    ],
    max_tokens: 400,
  },
] as const;

export const textRequestExamples = [
  { model, prompt: 'Who are you? The answer in one sentence:', max_tokens: 400 },
] as const;
