/** A request that the edge answers, as its worker was sent it. */
import { strict as assert } from 'node:assert';
import { testModel } from './edge-harness.ts';
import type { Harness } from './edge-harness.ts';

export const plainChat = { model: testModel, messages: [{ role: 'user', content: 'Hello.' }] };

/** A schema, a format that holds an answer to it, and a tool that takes it. */
export const schema = { type: 'object', properties: { a: { type: 'null' } } };
export const format = {
  type: 'json_schema',
  json_schema: { name: 'answer', schema, strict: true },
};
export const strictTools = [
  { type: 'function', function: { name: 'f', parameters: schema, strict: true } },
];

export async function sentToWorker(edge: Harness, path: string, body: unknown) {
  const response = await edge.post(path, body);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  const request = edge.worker.requests.at(-1);
  assert(request !== undefined, 'the worker was sent nothing');
  return request;
}
