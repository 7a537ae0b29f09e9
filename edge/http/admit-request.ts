/** The admission of a request, and where its answer is found by those who send it again. */
import type { AdmitInput, AdmitResult, RunningAnswer, Services, Tenant } from '../services.ts';

/** The second time, a request that was just settled is found in the store. */
const triesMax = 2;

/**
 * Asks the tenant. `running` is the answer that an admitted request with an idempotency key is to
 * make, or the one that is being made under its key; null when there is none here.
 */
export async function admit(
  services: Services,
  tenant: Tenant,
  input: AdmitInput,
): Promise<{ readonly admission: AdmitResult; readonly running: RunningAnswer | null }> {
  if (input.idempotency === null) {
    return { admission: await ask(services, tenant, input), running: null };
  }
  const { runningAnswers } = services;
  const own = runningAnswers.claim(input.requestId);
  let admitted = false;
  try {
    for (let tries = 1; ; tries++) {
      const admission = await ask(services, tenant, input);
      admitted = admission.kind === 'admitted';
      if (admission.kind !== 'running') return { admission, running: own };
      const running = runningAnswers.find(admission.requestId);
      if (running !== null || tries === triesMax) return { admission, running };
    }
  } finally {
    if (!admitted) own.over();
  }
}

async function ask(services: Services, tenant: Tenant, input: AdmitInput): Promise<AdmitResult> {
  const admitting = tenant.admit(input);
  // Where a client leaves now, the home would otherwise end the request here and leave its hold open.
  services.keepAlive(admitting.catch(() => {}));
  return await admitting;
}
