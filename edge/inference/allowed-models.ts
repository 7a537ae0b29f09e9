/** The models that a key may use, for routes that list models or run none. */
import type { ModelAlias, ModelRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import { askableModels } from './model-names.ts';
import { modelNotFoundError, refusalError } from './refusal.ts';

/** Ids of models; null: all of them. */
export type AllowedModels = readonly string[] | null;

interface KnownModels {
  readonly models: readonly ModelRecord[];
  readonly aliases: readonly ModelAlias[];
  readonly allowed: AllowedModels;
}

/** A key that does not exist is not bound by this, and refused by the route. */
export async function allowedModels(services: Services, key: VerifiedKey): Promise<AllowedModels> {
  return (await services.tenant(key.tenant).key(key.keyId))?.models ?? null;
}

/** Each alias stands for those of its models that the key may use, or for all if that is none. */
export function allowedChains(
  aliases: readonly ModelAlias[],
  allowed: AllowedModels,
): readonly ModelAlias[] {
  if (allowed === null) return aliases;
  return aliases.map((alias) => {
    const models = alias.models.filter((id) => allowed.includes(id));
    return models.length === 0 ? alias : { ...alias, models };
  });
}

/** @throws ApiError 403, as the request would be refused if it were run. */
export function refuseOthers(model: string, allowed: AllowedModels): void {
  if (allowed === null || allowed.includes(model)) return;
  throw refusalError({ kind: 'model-not-allowed', model, models: allowed });
}

/** Lists what the key may ask for: models, and aliases of any of them. */
export async function listedModels(
  services: Services,
  key: VerifiedKey,
): Promise<readonly ModelRecord[]> {
  return askable(await readModels(services, key));
}

/** @throws ApiError 404 with the nearest name that the key may use, or 403. */
export async function listedModel(
  services: Services,
  key: VerifiedKey,
  id: string,
): Promise<ModelRecord> {
  const known = await readModels(services, key);
  const listed = askable(known);
  const model = listed.find((each) => each.id === id);
  if (model !== undefined) return model;
  const first = known.aliases.find(({ name }) => name === id)?.models[0] ?? id;
  if (known.models.some((each) => each.id === first)) refuseOthers(first, known.allowed);
  throw modelNotFoundError(
    id,
    listed.map((each) => each.id),
  );
}

function askable({ models, aliases, allowed }: KnownModels): readonly ModelRecord[] {
  const usable = models.filter(({ id }) => allowed === null || allowed.includes(id));
  return askableModels(usable, allowedChains(aliases, allowed));
}

async function readModels(services: Services, key: VerifiedKey): Promise<KnownModels> {
  const { directory } = services;
  const [models, aliases, allowed] = await Promise.all([
    directory.models(),
    directory.aliases(),
    allowedModels(services, key),
  ]);
  return { models, aliases, allowed };
}
