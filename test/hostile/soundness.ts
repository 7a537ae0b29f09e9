/** Statements that must be true of the system after every attack, whatever it was. */
import { z } from 'zod';
import type { Verdict } from './attack.ts';
import type { HostileSystem } from './system.ts';

/** Holds of clients that left are settled a moment later. */
const settledMsMax = 20_000;

const auditSchema = z.object({ ok: z.boolean(), findings: z.array(z.unknown()) });
const tenantSchema = z.object({ balance: z.object({ held_nano_usd: z.number() }) });
const answerSchema = z.object({ usage: z.object({ completion_tokens: z.int().min(1) }) });

export async function isSound(
  system: HostileSystem,
  before: {
    /** The length of each program's log so far. */
    readonly marks: { readonly edge: number; readonly worker: number };
    readonly mayLog: string | null;
  },
): Promise<Verdict> {
  const { edge, worker, operator, victim } = system;
  if (!edge.isRunning()) return { broken: `the edge ended: ${edge.said().slice(-500)}` };
  if (!worker.isRunning()) return { broken: `the worker ended: ${worker.said().slice(-500)}` };

  const served = await system.post(victim, '/v1/chat/completions', {
    messages: [{ role: 'user', content: 'Are you there?' }],
    max_tokens: 2,
  });
  const text = await served.text();
  if (served.status !== 200 || !answerSchema.safeParse(parsed(text)).success) {
    return { broken: `the victim is no longer served: ${served.status} ${text.slice(0, 200)}` };
  }
  const held = await heldInTheEnd(system);
  if (held.length > 0) return { broken: `holds stay open: ${held.join(', ')}` };
  const audit = auditSchema.parse(await operator.call('GET', '/audit'));
  if (!audit.ok) return { broken: `the audit finds ${JSON.stringify(audit.findings[0])}` };

  const { marks, mayLog } = before;
  const said = [edge.said(marks.edge), worker.said(marks.worker)].join('\n');
  const fault = faultIn(said, mayLog);
  return fault === null ? 'held' : { broken: `the log says ${fault.slice(0, 500)}` };
}

/** Tenants of the system that still have a hold after all the time that settling may take. */
async function heldInTheEnd(system: HostileSystem): Promise<string[]> {
  const untilMs = performance.now() + settledMsMax;
  for (;;) {
    const held: string[] = [];
    for (const { tenant } of [system.victim, system.attacker, system.poor]) {
      const answer = await system.operator.call('GET', `/tenants/${tenant}`);
      const { balance } = tenantSchema.parse(answer);
      if (balance.held_nano_usd > 0) held.push(`${tenant} ${balance.held_nano_usd}`);
    }
    if (held.length === 0 || performance.now() > untilMs) return held;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A line that tells of a fault of ours: pino's levels from error on, and answers of 500. */
function faultIn(said: string, mayLog: string | null): string | null {
  const lines = said.split('\n').filter((line) => mayLog === null || !line.includes(mayLog));
  return (
    lines.find(
      (line) =>
        /"level":[56]0/.test(line) ||
        line.includes('"code":"internal_error"') ||
        /Uncaught|UnhandledPromiseRejection|FATAL ERROR/.test(line),
    ) ?? null
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
