/** Admits a request, and finds the answer for those who send it again. */
import { reconcileLost } from '../reconcile/reconcile-holds.ts';
import type { ReconcileContext } from '../reconcile/reconcile-holds.ts';
import type { RunningAnswer } from './running-answers-contract.ts';
import type { Services } from '../services.ts';
import type { AdmitInput, AdmitResult } from '../tenant/admission-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';

/**
 * At the second try a request that was just settled is in the store; at the third a lost one is.
 */
const triesMax = 3;

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
  const own = runningAnswers.claim({
    requestId: input.requestId,
    tenant: input.key.tenant,
  });
  let admitted = false;
  try {
    for (let tries = 1; ; tries++) {
      const admission = await ask(services, tenant, input);
      admitted = admission.kind === 'admitted';
      if (admission.kind !== 'running') return { admission, running: own };
      const { requestId } = admission;
      const running = runningAnswers.find(requestId);
      if (running !== null || tries === triesMax) return { admission, running };
      // Its process died, or could not reach the tenant to settle.
      const lost = tries === 2 && !runningAnswers.isSettling(requestId);
      if (lost) await reconcileLost(reconcileContext(services, tenant), requestId);
    }
  } finally {
    if (!admitted) own.over();
  }
}

function reconcileContext(services: Services, tenant: Tenant): ReconcileContext {
  const { clock, fetch, log, settings } = services;
  return { tenant, clock, fetch, log, workerToken: settings.workerToken };
}

async function ask(services: Services, tenant: Tenant, input: AdmitInput): Promise<AdmitResult> {
  const admitting = tenant.admit(input);
  // If a client leaves now, the runtime would otherwise end the request and leave its hold open.
  services.keepAlive(admitting.catch(() => {}));
  return await admitting;
}
