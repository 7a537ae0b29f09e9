/** POST /v1/completions, and /beta/completions with a suffix for fill-in-the-middle. */
import type { Services } from '../../services.ts';
import type { AppContext } from '../../middleware/app-env.ts';
import { answerInference } from '../../inference/inference.ts';

export const completions = (services: Services) => (c: AppContext) =>
  answerInference(c, services, 'text');
