/** `GET /v1/models` and `GET /v1/models/{id}`: the one model, with its context length. */
import { strict as assert } from 'node:assert';
import type { Context } from 'hono';
import type { ModelList } from '../protocol/responses.ts';
import { ApiError } from './api-error.ts';
import type { ServedModel } from './lifecycle.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';

export function listModels(c: Context<AppEnv>, services: WorkerServices): Response {
  const model = services.lifecycle.state().model;
  return c.json<ModelList>({ object: 'list', data: model ? [describe(model)] : [] });
}

export function retrieveModel(c: Context<AppEnv>, services: WorkerServices): Response {
  const model = services.lifecycle.state().model;
  const id = c.req.param('id');
  assert(id !== undefined, 'the path has an id');
  if (model?.id !== id) throw modelNotFound(id, model);
  return c.json(describe(model));
}

/** @throws ApiError 404 */
export function requireModel(model: { readonly id: string }, asked: string): void {
  if (asked !== model.id) throw modelNotFound(asked, model);
}

function modelNotFound(id: string, served: { readonly id: string } | null): ApiError {
  const advice = served === null ? '' : ` This worker serves '${served.id}'.`;
  return new ApiError('model_not_found', `The model '${id}' does not exist.${advice}`, {
    param: 'model',
  });
}

function describe(model: ServedModel): ModelList['data'][number] {
  const { contextLength, revision, parameters } = model.engine.description;
  return {
    id: model.id,
    object: 'model',
    created: model.created,
    owned_by: model.ownedBy,
    max_model_len: contextLength,
    context_length: contextLength,
    revision,
    parameters,
    // Requests that state no values are sampled with these.
    default_sampling_params: model.samplingDefaults,
  };
}
