/** Runs attacks one after another, each within its time, with a look at the system after each. */
import type { Attack, Verdict } from './attack.ts';
import { isSound } from './soundness.ts';
import type { HostileSystem } from './system.ts';

const secondsMaxDefault = 30;

export async function runAttack(system: HostileSystem, attack: Attack): Promise<Verdict> {
  const marks = { edge: system.edge.mark(), worker: system.worker.mark() };
  const secondsMax = attack.secondsMax ?? secondsMaxDefault;
  const verdict = await within(secondsMax, () => attack.run(system));
  if (verdict !== 'held') return verdict;
  return within(secondsMaxDefault * 2, () =>
    isSound(system, { marks, mayLog: attack.mayLog ?? null }),
  );
}

async function within(secondsMax: number, work: () => Promise<Verdict>): Promise<Verdict> {
  const late = Promise.withResolvers<Verdict>();
  const timer = setTimeout(
    () => late.resolve({ broken: `it was not over after ${secondsMax} s` }),
    secondsMax * 1_000,
  );
  try {
    return await Promise.race([work(), late.promise]);
  } catch (error) {
    const reason = error instanceof Error ? `${error.message} ${String(error.cause ?? '')}` : '';
    return { broken: `it failed: ${reason.slice(0, 500)}` };
  } finally {
    clearTimeout(timer);
  }
}
