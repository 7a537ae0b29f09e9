import { afterEach, expect, test } from 'vitest';
import type { z } from 'zod';
import { adminEndpoints, adminRoutes } from '../../../edge/admin/routes.ts';
import { errorTable } from '../../../edge/errors.ts';
import { publicEndpoints } from '../../../edge/http/public-api.ts';
import { startHarness } from '../../support/edge/edge-harness.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

test('the OpenAPI document describes every public route, with its schemas', async () => {
  edge = await startHarness({ scripts: [] });
  const response = await edge.app.request('/openapi.json');
  const document = await response.json();
  expect(document.openapi).toBe('3.1.0');
  expect(Object.keys(document.paths).toSorted()).toEqual([
    '/.well-known/sift-receipts.json',
    '/anthropic/v1/messages',
    '/anthropic/v1/messages/count_tokens',
    '/anthropic/v1/models',
    '/anthropic/v1/models/{id}',
    '/beta/chat/completions',
    '/beta/completions',
    '/chat/completions',
    '/completions',
    '/models',
    '/models/{id}',
    '/responses',
    '/responses/input_tokens',
    '/responses/{id}',
    '/responses/{id}/input_items',
    '/user/balance',
    '/v1/audit-log',
    '/v1/budgets',
    '/v1/budgets/{name}',
    '/v1/chat/completions',
    '/v1/checkout',
    '/v1/completions',
    '/v1/key',
    '/v1/keys',
    '/v1/keys/{key}',
    '/v1/models',
    '/v1/models/{id}',
    '/v1/quote',
    '/v1/receipts/{id}',
    '/v1/responses',
    '/v1/responses/input_tokens',
    '/v1/responses/{id}',
    '/v1/responses/{id}/input_items',
    '/v1/statements/{month}',
    '/v1/usage',
    '/v1/webhooks',
    '/v1/webhooks/{webhook}',
    '/v1/webhooks/{webhook}/deliveries',
    '/v1/webhooks/{webhook}/deliveries/{event}/resend',
    '/v1/webhooks/{webhook}/secret',
    '/v1/webhooks/{webhook}/test',
  ]);
  const chat = document.paths['/v1/chat/completions'].post;
  const body = chat.requestBody.content['application/json'].schema;
  expect(body.required).toEqual(['model', 'messages']);
  expect(body.properties.messages.items.oneOf).toHaveLength(5);
  expect(body.properties.temperature.anyOf[0]).toMatchObject({ minimum: 0, maximum: 2 });
  expect(Object.keys(chat.responses)).toEqual(expect.arrayContaining(['200', '402', '422', '503']));
});

test('every operation of the document has an id of its own', async () => {
  edge = await startHarness({ scripts: [] });
  const document = await (await edge.app.request('/openapi.json')).json();
  const ids = Object.values<Record<string, { operationId: string }>>(document.paths).flatMap(
    (methods) => Object.values(methods).map(({ operationId }) => operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
});

test('the page names every route and error and loads nothing', async () => {
  edge = await startHarness({ scripts: [] });
  const response = await edge.app.request('/docs');
  const page = await response.text();
  expect(response.headers.get('content-security-policy')).toBe(
    "default-src 'none'; style-src 'unsafe-inline'",
  );
  expect(page).toContain('/anthropic/v1/messages');
  expect(page).toContain('frequency_penalty');
  for (const code of Object.keys(errorTable)) {
    if (code !== 'client_left') expect(page).toContain(`<code>${code}</code>`);
  }
  expect(page).not.toMatch(/<script|<link|<img|@import|url\(|\b(src|href)="(https?:)?\/\//);
});

test.each([
  { prefix: '', endpoints: publicEndpoints },
  { prefix: '/admin', endpoints: adminEndpoints },
])("every route of '$prefix' has examples that its schemas take", async (reference) => {
  const mounts: HarnessOptions['mounts'] = [
    (app, services) => app.route('/admin', adminRoutes(services)),
  ];
  edge = await startHarness({ scripts: [], mounts });
  const { prefix, endpoints } = reference;
  const document = await (await edge.app.request(`${prefix}/openapi.json`)).json();
  for (const { method, path, aliases, status, body, content } of endpoints) {
    for (const each of [path, ...aliases]) {
      const { requestBody, responses } = document.paths[prefix + each][method];
      const what = `${method} ${prefix}${each}`;
      if (body !== null) takes(body, requestBody.content['application/json'], `${what}: body`);
      for (const [type, schema] of Object.entries(content)) {
        const written = responses[status].content[type];
        const parsed = takes(schema, written, `${what}: ${type}`);
        // A schema drops what it does not declare, and the reference would show it.
        expect(parsed, `${what}: ${type}`).toEqual(written.example);
      }
    }
  }
});

function takes(schema: z.ZodType, written: { readonly example?: unknown }, what: string): unknown {
  expect(written, what).toHaveProperty('example');
  const { success, error, data } = schema.safeParse(written.example);
  expect(success, `${what}: ${error?.message}`).toBe(true);
  return data;
}
