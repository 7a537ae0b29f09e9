/**
 * Posts webhooks from Node. The addresses of a name are checked when the connection is made, and
 * the connection goes to what was checked: a name whose answer changes in between gains nothing.
 */
import { lookup as lookupAddress } from 'node:dns';
import type { LookupAddress } from 'node:dns';
import { request as requestHttp } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { LookupFunction } from 'node:net';
import { isAllowedHost } from '../webhooks/receiver-rule.ts';
import type { PostWebhook } from '../webhooks/sender.ts';
import { isPublicAddress } from './public-address.ts';

/** Resolves a name to all of its addresses. */
export type Resolve = (hostname: string) => Promise<readonly LookupAddress[]>;

/** @param hosts patterns of the hosts that the operator allows on private addresses */
export function createWebhookPost(options: {
  readonly hosts: readonly string[];
  readonly resolve?: Resolve;
}): PostWebhook {
  const { hosts, resolve = resolveAll } = options;
  return async ({ url, headers, body, signal }) => {
    const isAllowed = isAllowedHost(url, hosts);
    const request = url.protocol === 'https:' ? requestHttps : requestHttp;
    const outgoing = request(url, {
      method: 'POST',
      headers: { ...headers, 'content-length': String(Buffer.byteLength(body)) },
      // A connection of its own, closed after the answer: none is kept for the next tenant.
      agent: false,
      lookup: lookupOf(resolve, isAllowed),
      signal,
    });
    return new Promise((answered, failed) => {
      outgoing.once('response', (incoming: IncomingMessage) => {
        // The receiver says nothing beside its status that anybody reads.
        incoming.destroy();
        const { statusCode: status = 0, headers: received } = incoming;
        answered({ status, retryAfter: received['retry-after'] ?? null });
      });
      outgoing.on('error', failed);
      outgoing.end(body);
    });
  };
}

function lookupOf(resolve: Resolve, isAllowed: boolean): LookupFunction {
  return (hostname, { all }, callback) => {
    resolve(hostname).then(
      (addresses) => {
        const [first] = addresses;
        const hidden = addresses.find(({ address }) => !isAllowed && !isPublicAddress(address));
        if (hidden !== undefined || first === undefined) {
          const reason =
            hidden === undefined ? 'has no address' : 'is on an address that is not public';
          callback(new Error(`its host ${reason}`), []);
        } else if (all) callback(null, [...addresses]);
        else callback(null, first.address, first.family);
      },
      (error: Error) => callback(error, []),
    );
  };
}

const resolveAll: Resolve = (hostname) =>
  new Promise((resolved, failed) => {
    lookupAddress(hostname, { all: true }, (error, addresses) =>
      error === null ? resolved(addresses) : failed(error),
    );
  });
