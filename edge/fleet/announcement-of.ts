/** The announcement that a worker's heartbeat makes. */
import type { Heartbeat } from '../../gpu-worker/protocol/heartbeat.ts';
import type { Announcement } from './worker-entry.ts';

export function announcementOf(heartbeat: Heartbeat): Announcement {
  const { id, url, epoch, start, models, state, capacity } = heartbeat;
  return {
    id,
    url: url.replace(/\/+$/, ''),
    epoch,
    ...(start !== undefined && { start }),
    state: state === 'ready' || state === 'draining' ? state : 'failing',
    models: models.map((model) => model.id),
    served: models.map((model) => ({
      id: model.id,
      contextLength: model.context_length,
      revision: model.revision,
      tokenizer: model.tokenizer,
    })),
    static: false,
    ...(capacity && { slots: capacity.sequences, waiting: capacity.waiting }),
    hasJournal: true,
    noDiscountReason: null,
  };
}
