/**
 * Reads requests in the test's own thread, which spares a start; what it reads is cloned as between
 * threads.
 */
import { readRequest } from '../../../gpu-worker/http/request/read-request.ts';
import type {
  ReadByRoute,
  TextModel,
  TextReader,
} from '../../../gpu-worker/http/text/text-model.ts';

export function ownThreadReader(text: Omit<TextModel, 'description'>): TextReader {
  return {
    async read<Route extends keyof ReadByRoute>(
      request: Parameters<TextReader['read']>[0] & { readonly route: Route },
    ) {
      const result = readRequest({ ...text, description: request.description }, request);
      // It answers what the route of its request reads.
      return structuredClone(result) as ReadByRoute[Route];
    },
    async close() {},
  };
}
