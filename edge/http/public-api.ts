/** Which route is answered by what. Paths without /v1 are DeepSeek's. */
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import { getAnthropicModel, listAnthropicModels } from '../dialects/anthropic/anthropic-models.ts';
import type { App, AppContext } from '../middleware/app-env.ts';
import { balance } from './balance.ts';
import { chatCompletions } from '../inference/inference.ts';
import { completions } from '../dialects/openai/completions.ts';
import { countTokens } from '../dialects/anthropic/count-tokens.ts';
import { crossOrigin } from '../middleware/cross-origin.ts';
import { messages } from '../dialects/anthropic/messages.ts';
import { getModel, listModels } from './models.ts';
import { quote } from './quote.ts';
import { createReference } from '../reference/reference.ts';
import { usage } from './usage.ts';

export function mountPublicApi(app: App, services: Services): void {
  const reference = createReference();
  const posts: Record<string, (c: AppContext) => Promise<Response>> = {
    '/v1/chat/completions': chatCompletions(services),
    '/chat/completions': chatCompletions(services),
    '/v1/completions': completions(services),
    '/completions': completions(services),
    '/beta/completions': completions(services),
    '/beta/chat/completions': chatCompletions(services),
    '/anthropic/v1/messages': messages(services),
    '/anthropic/v1/messages/count_tokens': countTokens(services),
    '/v1/quote': quote(services),
  };
  const gets: Record<string, (c: AppContext) => Promise<Response>> = {
    '/v1/models': listModels(services),
    '/models': listModels(services),
    '/v1/models/:id{.+}': getModel(services),
    '/models/:id{.+}': getModel(services),
    '/anthropic/v1/models': listAnthropicModels(services),
    '/anthropic/v1/models/:id{.+}': getAnthropicModel(services),
    '/user/balance': balance(services),
    '/v1/usage': usage(services),
    // For whatever watches over the process; it says nothing of the workers.
    '/health': async (c) => {
      const warnings = services.warnings();
      return c.json({ status: 'ok', ...(warnings.length > 0 && { warnings }) });
    },
    '/openapi.json': reference.json,
    '/docs': reference.page,
  };
  for (const path of [...Object.keys(posts), ...Object.keys(gets)]) app.use(path, crossOrigin);
  for (const [path, handler] of Object.entries(posts)) {
    app.post(path, handler);
    app.all(path, refuseMethod('POST'));
  }
  for (const [path, handler] of Object.entries(gets)) {
    app.get(path, handler);
    app.all(path, refuseMethod('GET'));
  }
}

function refuseMethod(allow: 'GET' | 'POST') {
  return (c: AppContext): never => {
    throw new ApiError('method_not_allowed', `${c.req.path} takes ${allow} requests.`, {
      headers: { allow },
    });
  };
}
