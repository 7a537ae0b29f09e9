/**
 * The OpenAPI document as one page for people: no script, no font, nothing loaded from elsewhere.
 * Lists of parameters open and close by themselves, because HTML can do that.
 */
import { strict as assert } from 'node:assert';
import { html, raw } from 'hono/html';
import { z } from '@hono/zod-openapi';

/** The part of a JSON schema that the page shows; the rest is for programs. */
interface Schema {
  readonly $ref?: string | undefined;
  readonly type?: string | readonly string[] | undefined;
  readonly description?: string | undefined;
  readonly const?: unknown;
  readonly enum?: readonly unknown[] | undefined;
  readonly pattern?: string | undefined;
  readonly minimum?: number | undefined;
  readonly maximum?: number | undefined;
  readonly required?: readonly string[] | undefined;
  readonly properties?: Readonly<Record<string, Schema>> | undefined;
  readonly items?: Schema | undefined;
  readonly anyOf?: readonly Schema[] | undefined;
  readonly oneOf?: readonly Schema[] | undefined;
}

const schemaShape: z.ZodType<Schema> = z.lazy(() =>
  z.looseObject({
    $ref: z.string().optional(),
    type: z.union([z.string(), z.array(z.string())]).optional(),
    description: z.string().optional(),
    const: z.unknown().optional(),
    enum: z.array(z.unknown()).optional(),
    pattern: z.string().optional(),
    minimum: z.number().optional(),
    maximum: z.number().optional(),
    required: z.array(z.string()).optional(),
    properties: z.record(z.string(), schemaShape).optional(),
    items: schemaShape.optional(),
    anyOf: z.array(schemaShape).optional(),
    oneOf: z.array(schemaShape).optional(),
  }),
);

const contentShape = z
  .record(z.string(), z.looseObject({ schema: schemaShape, example: z.unknown().optional() }))
  .optional();

const operationShape = z.looseObject({
  summary: z.string(),
  description: z.string(),
  parameters: z
    .array(
      z.looseObject({
        name: z.string(),
        in: z.string(),
        required: z.boolean().optional(),
        schema: schemaShape,
      }),
    )
    .optional(),
  requestBody: z.looseObject({ content: contentShape }).optional(),
  responses: z.record(
    z.string(),
    z.looseObject({ description: z.string(), content: contentShape }),
  ),
});
type Operation = z.infer<typeof operationShape>;

const documentShape = z.looseObject({
  info: z.looseObject({ title: z.string(), description: z.string() }),
  paths: z.record(z.string(), z.record(z.string(), operationShape)),
});

/** Deeper levels of a schema are left to openapi.json. */
const depthMax = 6;

export function renderReference(openApi: unknown): string {
  const { info, paths } = documentShape.parse(openApi);
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  const shown = mergeAliases(operations);
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${info.title} API reference</title>
        <style>
          ${raw(style)}
        </style>
      </head>
      <body>
        <nav>
          <h1>${info.title}</h1>
          <ul>
            ${shown.map(
              ({ paths: [path = ''], method, operation }) =>
                html`<li>
                  <a href="#${anchor(method, path)}">${operation.summary}</a>
                </li>`,
            )}
            <li><a href="#errors">Errors</a></li>
            <li><a href="/openapi.json">openapi.json</a></li>
          </ul>
        </nav>
        <main>
          <p class="lead">${withCode(info.description)}</p>
          ${shown.map(renderOperation)} ${renderErrors(shown[0]?.operation)}
        </main>
      </body>
    </html>`;
  return String(page);
}

interface Shown {
  readonly paths: readonly string[];
  readonly method: string;
  readonly operation: Operation;
}

/** Two paths of one route stand together. */
function mergeAliases(
  operations: readonly { path: string; method: string; operation: Operation }[],
): Shown[] {
  const bySummary = new Map<string, Shown>();
  for (const { path, method, operation } of operations) {
    const known = bySummary.get(operation.summary);
    bySummary.set(operation.summary, {
      paths: [...(known?.paths ?? []), path],
      method,
      operation: known?.operation ?? operation,
    });
  }
  return [...bySummary.values()];
}

function renderOperation({ paths, method, operation }: Shown) {
  const body = operation.requestBody?.content?.['application/json'];
  const made = operation.responses['200'] ?? operation.responses['201'];
  const answer = made?.content?.['application/json'];
  const parameters = operation.parameters ?? [];
  const [path] = paths;
  assert(path !== undefined, 'an operation has a path');
  return html`<section id="${anchor(method, path)}">
    <h2>${operation.summary}</h2>
    <p class="paths">
      ${paths.map((each) => html`<code><b>${method.toUpperCase()}</b> ${each}</code>`)}
    </p>
    <p>${withCode(operation.description)}</p>
    ${
      parameters.length > 0 &&
      html`<h3>Parameters</h3>
        <dl>
          ${parameters.map((each) =>
            renderProperty(`${each.name} (${each.in})`, each.schema, each.required ?? false, 0),
          )}
        </dl>`
    }
    ${
      body &&
      html`<h3>Body</h3>
        ${renderSchema(body.schema, 0)} ${renderExample(body.example)}`
    }
    ${
      answer &&
      html`<h3>Answer</h3>
        ${renderSchema(answer.schema, 0)} ${renderExample(answer.example)}`
    }
  </section>`;
}

function renderExample(example: unknown) {
  return html`<details>
    <summary>an example</summary>
    <pre>${JSON.stringify(example, null, 2)}</pre>
  </details>`;
}

type Rendered = ReturnType<typeof html> | string;

function renderSchema(schema: Schema, depth: number): Rendered {
  if (depth > depthMax) return '';
  const branches = (schema.anyOf ?? schema.oneOf ?? []).filter((each) => each.type !== 'null');
  if (branches.length > 0) {
    const shown = branches.filter((each) => hasParts(each));
    return html`${shown.map(
      (each, index) =>
        html`${index > 0 ? html`<p class="or">or</p>` : ''}${renderSchema(each, depth + 1)}`,
    )}`;
  }
  if (schema.items) return renderSchema(schema.items, depth + 1);
  const properties = Object.entries(schema.properties ?? {});
  if (properties.length === 0) return '';
  return html`<dl>
    ${properties.map(([name, property]) =>
      renderProperty(name, property, schema.required?.includes(name) ?? false, depth),
    )}
  </dl>`;
}

function renderProperty(name: string, schema: Schema, required: boolean, depth: number) {
  const parts = hasParts(schema) ? renderSchema(schema, depth + 1) : '';
  return html`<dt>
      <code>${name}</code> <span class="type">${typeText(schema)}</span>
      ${required ? html`<span class="required">required</span>` : ''}
    </dt>
    <dd>
      ${schema.description ? html`<p>${withCode(schema.description)}</p>` : ''}
      ${
        parts &&
        html`<details>
          <summary>its parts</summary>
          ${parts}
        </details>`
      }
    </dd>`;
}

function hasParts(schema: Schema): boolean {
  return (
    Object.keys(schema.properties ?? {}).length > 0 ||
    (schema.items !== undefined && hasParts(schema.items)) ||
    [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].some((each) => hasParts(each))
  );
}

function typeText(schema: Schema): string {
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches) {
    const texts = branches.filter((each) => each.type !== 'null').map((each) => typeText(each));
    return [...new Set(texts)].join(' or ');
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (schema.items) return `list of ${typeText(schema.items)}`;
  const type = [schema.type ?? 'anything'].flat().filter((each) => each !== 'null');
  return `${type.join(' or ')}${rangeText(schema)}`;
}

function rangeText({ minimum, maximum }: Schema): string {
  const top = maximum !== undefined && Math.abs(maximum) < 1e15 ? maximum : undefined;
  const bottom = minimum !== undefined && Math.abs(minimum) < 1e15 ? minimum : undefined;
  if (bottom !== undefined && top !== undefined) return `, ${bottom} to ${top}`;
  if (bottom !== undefined) return `, from ${bottom}`;
  return top === undefined ? '' : `, to ${top}`;
}

function renderErrors(operation: Operation | undefined) {
  const rows = Object.entries(operation?.responses ?? {}).filter(([status]) => status !== '200');
  return html`<section id="errors">
    <h2>Errors</h2>
    <p>
      In OpenAI's shape, <code>{"error": {"message", "type", "param", "code"}}</code>, and on
      Anthropic's routes in Anthropic's.
    </p>
    <table>
      ${rows.map(
        ([status, { description }]) =>
          html`<tr>
            <th>${status}</th>
            <td>${withCode(description)}</td>
          </tr>`,
      )}
    </table>
  </section>`;
}

/** `code` in backticks as code. */
function withCode(text: string) {
  return text
    .split('`')
    .map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : html`${part}`));
}

function anchor(method: string, path: string): string {
  return `${method}${path}`.replaceAll(/[^a-z0-9]+/g, '-').replace(/-$/, '');
}

const style = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --soft: color-mix(in srgb, currentColor 62%, transparent); --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa5ff; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; display: grid;
  grid-template-columns: 16rem minmax(0, 48rem); gap: 3rem; padding: 0 2rem; }
nav { position: sticky; top: 0; align-self: start; padding: 2rem 0; max-height: 100vh; \
overflow: auto; }
nav h1 { font-size: 1.25rem; margin: 0 0 1rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li { margin: .35rem 0; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
main { padding: 2rem 0 6rem; }
.lead { font-size: 1.05rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; }
h2 { margin: .5rem 0; }
h3 { margin: 1.5rem 0 .25rem; font-size: .85rem; text-transform: uppercase; letter-spacing: .06em;
  color: var(--soft); }
code { font: .9em ui-monospace, monospace; background: var(--line); border-radius: .25rem;
  padding: .1em .35em; }
pre { font: .9em ui-monospace, monospace; overflow-x: auto; }
.paths code { display: inline-block; margin: 0 .5rem .5rem 0; padding: .35em .6em; }
dl { margin: 0; }
dt { padding-top: .6rem; border-top: 1px solid var(--line); margin-top: .6rem; }
dd { margin: .2rem 0 0 1rem; }
dd p { margin: .2rem 0; }
.type { color: var(--soft); font-size: .9em; }
.required { color: var(--accent); font-size: .8em; }
.or { color: var(--soft); margin: .5rem 0; }
summary { cursor: pointer; color: var(--soft); font-size: .9em; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0;
  border-top: 1px solid var(--line); }
@media (max-width: 60rem) { body { display: block; padding: 0 1rem; } nav { position: static; } }
`;
