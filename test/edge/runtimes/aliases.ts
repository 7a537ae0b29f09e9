/** Other names of models, asked of a running edge whose operator gives them. */
import { expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import type { Operator } from '../../support/edge/seed.ts';
import type { RunningEdge } from './end-to-end.ts';

export function describeAliases(edgeOf: () => RunningEdge, operatorOf: () => Operator): void {
  test('an alias runs as the first of its models that a worker serves, and is billed as it', async () => {
    const { model, stub, apiKey, baseUrl } = edgeOf();
    stub.script = plainScript;
    const spare = { id: 'unserved', context_length: 1_024, revision: 'r', tokenizer: 't' };
    const { call } = operatorOf();
    await call('POST', '/models', spare);
    await call('POST', '/prices', { model: spare.id, input_cached: 1, input: 1, output: 1 });
    await call('POST', '/aliases', { name: 'best', models: [spare.id, model] });
    const ask = () =>
      fetch(`${baseUrl}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'best', messages: [{ role: 'user', content: 'Hi.' }] }),
      });
    // An edge may keep what it knows of models for a moment.
    await expect.poll(async () => (await ask()).status).toBe(200);
    const answer = await ask();
    expect(answer.headers.get('x-sift-model-alias')).toBe('best');
    expect(await answer.json()).toMatchObject({ model });
    const listed = await call('GET', '/models');
    expect(listed).toMatchObject({ aliases: [{ name: 'best', models: [spare.id, model] }] });
  });
}
