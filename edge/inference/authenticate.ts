/** The first stage: the key proves itself, without storage. */
import { readApiKey, verifyApiKey } from '../auth/api-key.ts';
import { ApiError, badKeyError } from '../errors.ts';
import { holdNanoUsd } from '../money.ts';
import type { TenantRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import type { PreadmitInput } from '../tenant/admission-contract.ts';
import type { Scope, VerifiedKey } from '../tenant/key-contract.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { mayBeLarge } from '../bodies/read-body.ts';
import { refusalError } from './refusal.ts';

/** @throws ApiError 401, the same for every key that does not work. */
export function authenticate(c: AppContext, services: Services): VerifiedKey {
  const text = readApiKey(c.req.raw.headers);
  if (text === null) {
    throw new ApiError(
      'invalid_api_key',
      'No API key provided. Send it as "Authorization: Bearer <key>" or "x-api-key: <key>".',
    );
  }
  const key = verifyApiKey(text, services.settings.keySigningSecrets);
  if (key === null) throw badKeyError();
  const record = c.get('record');
  record.note({ tenant: key.tenant, keyId: key.keyId });
  record.reach('authenticated');
  return key;
}

/** Admits to routes that cost nothing: the key proves itself, and the tenant says that it may. */
export async function authorize(
  c: AppContext,
  services: Services,
  scope: Scope,
): Promise<VerifiedKey> {
  const key = authenticate(c, services);
  await checkTenant(services, key.tenant);
  const refusal = await services.tenant(key.tenant).authorize(key, scope);
  if (refusal) throw refusalError(refusal);
  return key;
}

/**
 * The second stage, of a request whose body may be large: its bytes are not read for a caller who
 * is going to be refused whatever they say. A small one has mostly come with the headers, and is
 * asked about once, at its admission.
 * @throws ApiError
 */
export async function checkBeforeBody(
  c: AppContext,
  services: Services,
  request: Pick<PreadmitInput, 'key' | 'idempotencyKey'> & { readonly isFree: boolean },
): Promise<void> {
  if (!mayBeLarge(c)) return;
  const { key, idempotencyKey, isFree } = request;
  await checkTenant(services, key.tenant);
  const costs = !isFree && (await allModelsCost(services));
  const input = { key, scope: 'inference', idempotencyKey, costs } as const;
  const { refusal, limits } = await services.tenant(key.tenant).preadmit(input);
  if (refusal) throw refusalError(refusal, limits);
}

async function allModelsCost({ directory, clock }: Services): Promise<boolean> {
  const nowMs = clock.nowMs();
  const models = await directory.models();
  const prices = await Promise.all(models.map(({ id }) => directory.priceAt(id, nowMs)));
  const leastTokens = { promptTokensMax: 1, outputTokensMax: 1 };
  return prices.every((price) => price === null || holdNanoUsd(leastTokens, price) > 0);
}

/** @throws ApiError 401 if there is no such tenant, 403 if it is suspended. */
export async function checkTenant(services: Services, id: string): Promise<TenantRecord> {
  const tenant = await services.directory.tenant(id);
  if (tenant === null) throw badKeyError();
  if (tenant.status === 'suspended') {
    throw new ApiError('account_suspended', 'The account is suspended; ask its operator.');
  }
  return tenant;
}
