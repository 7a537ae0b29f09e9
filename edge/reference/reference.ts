/** GET /openapi.json and GET /docs: the reference, for programs and for people. Both need no key. */
import { renderReference } from './openapi-page.ts';
import { createOpenApiDocument } from './openapi.ts';
import type { AppContext } from '../middleware/app-env.ts';

export interface Reference {
  readonly json: (c: AppContext) => Promise<Response>;
  readonly page: (c: AppContext) => Promise<Response>;
}

/** Both are built when they are first asked for, and kept: they only change with the program. */
export function createReference(): Reference {
  let built: { readonly json: string; readonly html: string } | null = null;
  const build = () => {
    if (built === null) {
      const document = createOpenApiDocument();
      built = { json: JSON.stringify(document), html: renderReference(document) };
    }
    return built;
  };
  return {
    json: async (c) =>
      c.body(build().json, 200, {
        'content-type': 'application/json',
        'cache-control': 'public, max-age=300',
        'access-control-allow-origin': '*',
      }),
    page: async (c) =>
      c.body(build().html, 200, {
        'content-type': 'text/html; charset=utf-8',
        'cache-control': 'public, max-age=300',
        // The page is text and its own style: no script, no font, no picture from anywhere.
        'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
        'x-content-type-options': 'nosniff',
      }),
  };
}
