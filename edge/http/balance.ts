/** GET /user/balance, in DeepSeek's shape: amounts are strings. */
import type { Services } from '../services.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { authorize } from '../inference/authenticate.ts';
import { formatUsd } from '../money-text.ts';

export const balance = (services: Services) => async (c: AppContext) => {
  const key = await authorize(c, services, 'read');
  const { granted, toppedUp, held } = await services.tenant(key.tenant).balance();
  return c.json({
    is_available: granted + toppedUp - held > 0,
    balance_infos: [
      {
        currency: 'USD',
        total_balance: formatUsd(granted + toppedUp),
        granted_balance: formatUsd(granted),
        topped_up_balance: formatUsd(toppedUp),
      },
    ],
  });
};
