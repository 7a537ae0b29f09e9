/**
 * Looks up what a request names of what its tenant has stored. A request is read for its names
 * first, and once more with what was found.
 */
import { prepareBody } from '../bodies/body-work.ts';
import type { BodyClient, PreparedBody } from '../bodies/body-work.ts';
import { readerNamed } from '../dialects/dialects.ts';
import type { EarlierItems, StoredNames } from '../dialects/inference-request.ts';
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import type { PrepareInput } from './prepare.ts';
import { refusalError } from './refusal.ts';

/** A body without these words names nothing that is stored. */
const words = ['previous_response_id', 'item_reference', '"id"'];

/** @throws ApiError as `prepareBody` does, and 404 for what is not stored. */
export async function prepareWithStored(
  services: Services,
  input: PrepareInput,
  client: BodyClient & { readonly key: VerifiedKey },
): Promise<PreparedBody> {
  const { namesStored = false } = readerNamed(input.reader);
  // The first reading may take the bytes away.
  const bytes = namesStored && mayName(input.bytes) ? input.bytes.slice() : null;
  const prepared = await prepareBody(services, input, client);
  const { storedNames } = prepared.request;
  if (bytes === null || storedNames === undefined) return prepared;
  const earlier = await lookUp(services, client.key, storedNames);
  return await prepareBody(
    services,
    { ...input, bytes, context: { ...input.context, earlier } },
    client,
  );
}

function mayName(bytes: Uint8Array): boolean {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  // An escaped word is written with a backslash and its number.
  return [...words, '\\u'].some((word) => text.includes(word));
}

async function lookUp(
  services: Services,
  key: VerifiedKey,
  names: StoredNames,
): Promise<EarlierItems> {
  const found = await services.tenant(key.tenant).earlierItems(key, names);
  switch (found.kind) {
    case 'found':
      return found.earlier;
    case 'refused':
      throw refusalError(found.refusal);
    case 'no-response':
      throw noResponse(found.id, found.after);
    case 'no-item':
      throw new ApiError(
        'not_found',
        `The item '${found.id}' is not stored: only items of stored responses are. Send the item ` +
          "itself, or 'store' true with the request that is to make it.",
        { param: 'input' },
      );
    case 'too-long':
      throw new ApiError(
        'invalid_value',
        "The stored conversation is too long to go on from; send the items in 'input'.",
        { param: 'previous_response_id' },
      );
  }
}

function noResponse(id: string, after: string | null): ApiError {
  const which = after === null ? '' : `, from which '${after}' goes on,`;
  return new ApiError(
    'not_found',
    `The response '${id}'${which} is not stored. Responses are stored when their request has ` +
      "'store' true, for 30 days after their last use.",
    { param: 'previous_response_id' },
  );
}
