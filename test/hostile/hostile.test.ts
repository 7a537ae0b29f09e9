/** A few attacks of every topic; `npm run hostile` runs them all. */
import { expect, test } from 'vitest';
import { runAttack } from './run-attacks.ts';
import { startHostileSystem } from './system.ts';
import { topics } from './topics.ts';

const perTopic = 2;

test(
  'the system holds against the first attacks of every topic',
  { timeout: 300_000 },
  async () => {
    await using system = await startHostileSystem();
    for (const [topic, attacks] of Object.entries(topics)) {
      for (const attack of attacks.slice(0, perTopic)) {
        expect(await runAttack(system, attack), `${topic}: ${attack.name}`).toBe('held');
      }
    }
  },
);
