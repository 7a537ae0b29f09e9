import { afterAll, test } from 'vitest';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';
import { describeEndToEnd } from './end-to-end.ts';
import type { RunningEdge } from './end-to-end.ts';
import { describeCutConnections } from './cut-connections.ts';
import { operatorOf } from '../../support/edge/seed.ts';
import type { Operator } from '../../support/edge/seed.ts';
import { describeAliases } from './aliases.ts';
import { describeBudgets, leaseTokens } from './budgets.ts';
import { describeWatched } from './watched.ts';
import { describeKeyedStreams } from './keyed-streams.ts';
import { describeResponses } from './responses.ts';
import { describeLeavingWholeAnswers, leaveSilence, seededEdge } from './end-to-end-runtimes.ts';

const folder = testFolder();
let edge: RunningEdge;
let operator: Operator;
afterAll(async () => {
  await edge?.close();
  folder.remove();
});

describeEndToEnd('the edge on Node', async () => {
  const runtime = await startNode(folder.path, {
    env: { EDGE_LEASE_TOKENS: String(leaseTokens) },
  });
  const { adminToken, workerToken } = runtime.services.settings;
  operator = operatorOf(runtime.url, adminToken);
  edge = await seededEdge({
    url: runtime.url,
    adminToken,
    workerToken,
    close: () => runtime.close(),
  });
  return { ...edge, close: async () => {} };
});

test('a client that leaves while the worker is silent is noticed', async () => {
  await leaveSilence(edge);
});

describeLeavingWholeAnswers(() => edge);

describeCutConnections(() => edge);

describeResponses(() => edge);

describeKeyedStreams(() => edge);

describeWatched(() => edge);
describeAliases(
  () => edge,
  () => operator,
);

describeBudgets(
  () => edge,
  () => operator,
);
