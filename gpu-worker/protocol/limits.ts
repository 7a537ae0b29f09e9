/** The bounds of requests and announcements that edge and workers agree on. */

/** Output tokens of a request that states no maximum, if the context has room for them. */
export const defaultOutputTokens = 4096;

export const choicesMax = 8;
/** Models that one worker announces. */
export const servedModelsMax = 64;

export const messagesMax = 8192;
export const promptsMax = 64;
export const stopStringsMax = 16;
export const stopStringCharactersMax = 256;
export const logprobsMax = 20;

/** Log-probabilities that a whole answer may have, alternatives counted; a stream may have more. */
export const wholeLogprobsMax = 2 ** 20;

/** Anthropic's bound; OpenAI's routes take 64. */
export const toolNameCharactersMax = 128;

/**
 * No request has so many tokens. The bound keeps sums of false counts, and what they would cost at
 * the dearest price, exact.
 */
export const tokenCountMax = 2 ** 31 - 1;
