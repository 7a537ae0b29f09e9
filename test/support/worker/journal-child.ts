/** Finishes requests as fast as it can until it is killed, telling its parent of each. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pino } from 'pino';
import { openUsageJournal } from '../../../gpu-worker/http/journal/usage-journal.ts';

const [, , directory = ''] = process.argv;
let aheadMs = 0;
const journal = await openUsageJournal({
  directory,
  clock: { wallMs: () => Date.now() + aheadMs, steadyMs: () => performance.now() },
  logger: pino({ level: 'silent' }),
});
const usage = { promptTokens: 100, cachedTokens: 0, outputTokens: 3, reasoningTokens: 0 };

journal.begin({ id: 'long', model: 'tiny' });
aheadMs = 1_500;
journal.update('long', usage);
journal.update('long', { ...usage, outputTokens: 4 });
journal.begin({ id: 'just-begun', model: 'tiny' });
for (let index = 0; ; index++) {
  journal.begin({ id: `r${index}`, model: 'tiny' });
  await journal.finish(`r${index}`, { outcome: 'done', usage: { ...usage, outputTokens: 5 } });
  process.send?.(`r${index}`);
  await nextTurn();
}
