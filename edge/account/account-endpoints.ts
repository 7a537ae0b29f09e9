/** All routes about one account that its keys and its operator have alike. */
import type { AccountEndpoint } from './account-endpoint.ts';
import { budgets } from './budgets.ts';
import { statement } from './statements.ts';
import { webhookEndpoints } from './webhooks.ts';

export const accountEndpoints: readonly AccountEndpoint[] = [
  statement,
  ...budgets,
  ...webhookEndpoints,
];
