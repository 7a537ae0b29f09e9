/** All routes about one account that its keys and its operator have alike. */
import type { AccountEndpoint } from './account-endpoint.ts';
import { auditEntries } from './audit-log.ts';
import { budgets } from './budgets.ts';
import { checkout } from './checkout.ts';
import { keyEndpoints } from './keys.ts';
import { statement } from './statements.ts';
import { webhookEndpoints } from './webhooks.ts';

export const accountEndpoints: readonly AccountEndpoint[] = [
  ...keyEndpoints,
  ...budgets,
  statement,
  checkout,
  ...webhookEndpoints,
  auditEntries,
];
