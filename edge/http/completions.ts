/** POST /v1/completions, and /beta/completions with a suffix for fill-in-the-middle. */
import type { Services } from '../services.ts';
import type { AppContext } from './app-env.ts';
import { answerInference } from './chat-completions.ts';

export const completions = (services: Services) => (c: AppContext) =>
  answerInference(c, services, 'text');
