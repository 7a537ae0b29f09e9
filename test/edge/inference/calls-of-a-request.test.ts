/** On Cloudflare each call of a tenant or of the fleet is a request to a Durable Object. */
import { expect, onTestFinished, test } from 'vitest';
import { fleetMethods } from '../../../edge/fleet/fleet-contract.ts';
import { tenantMethods } from '../../../edge/tenant/tenant-contract.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';

/** Notes the name of every method that is called. */
function watch<Target extends object>(target: Target, names: readonly string[]): string[] {
  const calls: string[] = [];
  for (const name of names) {
    const method: unknown = Reflect.get(target, name);
    if (typeof method !== 'function') continue;
    const watched = (...args: unknown[]): unknown => {
      calls.push(name);
      return Reflect.apply(method, target, args);
    };
    Reflect.defineProperty(target, name, { value: watched, configurable: true });
  }
  return calls;
}

test.each([false, true])(
  'an answer (streamed: %s) asks its tenant three times and the fleet four times',
  async (stream) => {
    const edge = await startHarness();
    onTestFinished(() => edge.close());
    const ask = async (): Promise<string> => {
      const messages = [{ role: 'user', content: 'Hi.' }];
      const body = { model: testModel, max_tokens: 5, stream, messages };
      const text = JSON.stringify(body);
      const headers = { 'content-length': String(text.length) };
      return (await edge.post('/v1/chat/completions', text, { headers })).text();
    };
    await ask();
    await edge.idle();
    const ofTenant = watch(edge.tenant, tenantMethods);
    const ofFleet = watch(edge.fleet, fleetMethods);
    await ask();
    await edge.idle();
    // The second names the worker on the disk before anything is answered; money needs it there.
    expect(ofTenant).toEqual(['admit', 'placed', 'settle']);
    // Asked of the status as well, which a runtime keeps for some time.
    const once = ofFleet.filter((name) => name !== 'status');
    expect(once.toSorted()).toEqual(['expectedRefusal', 'finished', 'place', 'started']);
  },
);
