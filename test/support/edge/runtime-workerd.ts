/**
 * The edge in real workerd with test secrets, on any free port, its state in a folder of the test's
 * own.
 */
import { startWorkerdEdge } from '../../../infra/workerd-edge.ts';
import type { WorkerdEdge } from '../../../infra/workerd-edge.ts';

export const testSecrets = {
  EDGE_KEY_SIGNING_SECRETS: 'signing-secret-of-the-tests',
  EDGE_CACHE_SECRET: 'cache-secret-of-the-tests',
  EDGE_RECEIPT_KEYS: Buffer.alloc(32, 7).toString('base64url'),
  WORKER_TOKEN: 'worker-token-of-the-tests',
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-tests',
};

export function startWorkerd(options: {
  readonly folder: string;
  readonly settings?: Readonly<Record<string, string>>;
}): Promise<WorkerdEdge> {
  const { folder, settings } = options;
  return startWorkerdEdge({ folder, settings: { ...testSecrets, ...settings } });
}
