/**
 * The model that a request runs on: the one that it names, or of an alias the first one that can
 * take it. What runs is what is billed and reported.
 */
import type { ModelAlias, ModelRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import { modelNotFoundError } from './refusal.ts';

/** The names that requests may use, and the models that an alias does not run on now. */
export interface ModelNames {
  readonly models: readonly ModelRecord[];
  readonly aliases: readonly ModelAlias[];
  readonly passedOver: readonly string[];
}

export interface ResolvedModel {
  readonly model: ModelRecord;
  /** The name that the request has for it; null where that is its own. */
  readonly alias: string | null;
  /** Models of its alias that come after it and may take the request in its place. */
  readonly standIns: number;
  /** Models of its alias that were passed over for it. */
  readonly unable: readonly string[];
}

/**
 * Finds the model. Where each model of an alias is passed over, the request runs on the first, and
 * is refused with that model's reason.
 * @throws ApiError 404 with the nearest name
 */
export function resolveModel(
  asked: string,
  { models, aliases, passedOver }: ModelNames,
): ResolvedModel {
  const chain = aliases.find(({ name }) => name === asked)?.models ?? [asked];
  const listed = chain.flatMap((id) => models.filter((model) => model.id === id));
  const able = listed.filter(({ id }) => !passedOver.includes(id));
  const model = able[0] ?? listed[0];
  if (model === undefined) throw modelNotFoundError(asked, namesOf(models, aliases));
  const unable = listed.flatMap(({ id }) => (able.length > 0 && !isIn(able, id) ? [id] : []));
  const standIns = Math.max(0, able.length - 1);
  return { model, alias: model.id === asked ? null : asked, standIns, unable };
}

function isIn(models: readonly ModelRecord[], id: string): boolean {
  return models.some((model) => model.id === id);
}

/** All that can be asked for: aliases look like the first of their models under another name. */
export function askableModels(
  models: readonly ModelRecord[],
  aliases: readonly ModelAlias[],
): ModelRecord[] {
  const others = aliases.filter(({ name }) => !models.some(({ id }) => id === name));
  const named = others.flatMap(({ name: id, models: [first], createdAtMs }) =>
    models.filter((model) => model.id === first).map((model) => ({ ...model, id, createdAtMs })),
  );
  return [...models, ...named];
}

export function namesOf(
  models: readonly ModelRecord[],
  aliases: readonly ModelAlias[],
): readonly string[] {
  return [...new Set([...models.map(({ id }) => id), ...aliases.map(({ name }) => name)])];
}

/**
 * Lists the models, of those that the body's alias may run on, that have no price or would refuse
 * the request at once. Bodies that name no alias of several models cost no question.
 */
export async function modelsToPassOver(
  services: Services,
  aliases: readonly ModelAlias[],
  request: {
    readonly bytes: Uint8Array;
    readonly tenant: string;
    readonly waitMsMax: number;
  },
): Promise<readonly string[]> {
  const { bytes, tenant, waitMsMax } = request;
  const chains = chainsIn(bytes, aliases);
  if (chains.length === 0) return [];
  const { directory, fleet, clock } = services;
  const weight = (await directory.tenant(tenant))?.weight ?? 1;
  const priority = 'normal';
  const turn = { tenant, weight, priority, slots: 1, waitMsMax, busyWorker: null } as const;
  const models = [...new Set(chains.flatMap((chain) => chain.models))];
  const prices = models.map((model) => directory.priceAt(model, clock.nowMs()));
  const [refusing, ...inForce] = await Promise.all([fleet.refusing({ models, turn }), ...prices]);
  return [...refusing, ...models.filter((_, index) => inForce[index] === null)];
}

/** Lists the aliases of several models that the body may name. */
export function chainsIn(bytes: Uint8Array, aliases: readonly ModelAlias[]): readonly ModelAlias[] {
  return aliases.filter(({ name, models }) => models.length > 1 && mayName(bytes, name));
}

/** JSON may write a name with backslashes; a body that has any may name it. */
function mayName(bytes: Uint8Array, name: string): boolean {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return text.includes(name) || text.includes('\\');
}
