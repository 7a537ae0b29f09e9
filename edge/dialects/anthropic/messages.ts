/** POST /anthropic/v1/messages: Anthropic's protocol over the same path. */
import type { Services } from '../../services.ts';
import type { AppContext } from '../../middleware/app-env.ts';
import { answerInference } from '../../inference/inference.ts';

export const messages = (services: Services) => (c: AppContext) =>
  answerInference(c, services, 'messages');
