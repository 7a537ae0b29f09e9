/** Requests of Anthropic's routes as the reference shows them. */
const prompt = {
  model: 'sift-tiny',
  system: 'You are sift. Answer in one sentence.',
  messages: [{ role: 'user', content: 'Who are you?' }],
};

export const countTokensRequestExamples = [prompt] as const;
export const messagesRequestExamples = [{ ...prompt, max_tokens: 400 }] as const;
