/** A foreign engine that an operator adds to a running edge, and what its status says. */
import { afterEach, expect, test } from 'vitest';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';
import { operatorOf, seedModelAndWorker, seedModel } from '../../support/edge/seed.ts';
import { startStubWorker } from '../../support/edge/edge-stub-worker.ts';
import { llamaCpp, llamaCppOlder } from '../../support/engines/llama-cpp.ts';
import { plainScenario } from '../../support/engines/scenario.ts';
import { startEngine } from '../../support/engines/server.ts';
import { sglang } from '../../support/engines/sglang.ts';
import { tensorrtLlm } from '../../support/engines/tensorrt-llm.ts';
import { vllm, vllmOlder } from '../../support/engines/vllm.ts';

const workerToken = 'worker-token-of-the-tests';
const env = {
  EDGE_KEY_SIGNING_SECRETS: 'signing-secret-of-the-tests',
  WORKER_TOKEN: workerToken,
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-tests',
};
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

interface Listed {
  readonly workers: readonly { id: string; state: string; no_discount_reason: string | null }[];
}

const makes = [vllm, vllmOlder, sglang, tensorrtLlm, llamaCpp, llamaCppOlder];
test.each(makes)('$name says in its status whether it states cached tokens', async (make) => {
  const folder = testFolder();
  closers.push(folder.remove);
  const edge = await startNode(folder.path, { env });
  closers.push(() => edge.close());
  const operator = operatorOf(edge.url, env.EDGE_ADMIN_TOKEN);
  // It gives the edge its model and is then taken out of service.
  const stub = await startStubWorker({ token: workerToken, model: seedModel });
  closers.push(() => stub.close());
  const seeded = await seedModelAndWorker({ ...edge, operator, workerToken }, stub);
  closers.push(() => seeded.stop());
  await operator.call('POST', '/workers/stub/drain', { draining: true });
  const apiKey = await operator.addTenant('acme', 1_000_000_000);

  for (const [id, cachedTokens] of [
    ['stating', 128],
    ['silent', null],
  ] as const) {
    const engine = await startEngine(make, seedModel);
    closers.push(() => engine.close());
    engine.scenario = { ...plainScenario, cachedTokens };
    await operator.call('POST', '/workers', { id, url: engine.url });
    const listed = async () => {
      const { workers } = (await operator.call('GET', '/workers')) as Listed;
      return workers.find((worker) => worker.id === id);
    };
    await expect.poll(async () => (await listed())?.state, { timeout: 20_000 }).toBe('ready');
    const { no_discount_reason: reason } = (await listed()) ?? {};
    if (cachedTokens === null) expect(reason).toMatch(/does not report cached tokens/);
    else expect(reason).toBeNull();

    const response = await fetch(`${edge.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: seedModel, messages: [{ role: 'user', content: 'Hi.' }] }),
    });
    expect(response.status).toBe(200);
    const { usage } = (await response.json()) as { usage: object };
    expect(usage).toMatchObject({ prompt_tokens_details: { cached_tokens: cachedTokens } });
    await operator.call('POST', `/workers/${id}/drain`, { draining: true });
  }
});
