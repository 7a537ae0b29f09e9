/** GET /user/balance, in DeepSeek's shape: amounts are strings. */
import { z } from 'zod';
import { formatUsd } from '../money-text.ts';
import { keyEndpoint } from './key-endpoint.ts';

const example = {
  is_available: true,
  balance_infos: [
    {
      currency: 'USD',
      total_balance: '27.50',
      granted_balance: '2.50',
      topped_up_balance: '25.00',
    },
  ],
};

export const balanceSchema = z.object({
  is_available: z.boolean().describe('Whether a request may be admitted at all.'),
  balance_infos: z.array(
    z.object({
      currency: z.literal('USD'),
      total_balance: z.string().describe('What was granted and topped up, exact, such as "9.50".'),
      granted_balance: z.string(),
      topped_up_balance: z.string(),
    }),
  ),
});

export const balance = keyEndpoint(
  {
    method: 'get',
    path: '/user/balance',
    summary: 'Balance',
    description: "DeepSeek's balance: exact amounts, as text. Needs the scope read.",
    scope: 'read',
    answer: balanceSchema.meta({ examples: [example] }),
  },
  async ({ services, key }) => {
    const { granted, toppedUp, held } = await services.tenant(key.tenant).balance();
    return {
      is_available: granted + toppedUp - held > 0,
      balance_infos: [
        {
          currency: 'USD' as const,
          total_balance: formatUsd(granted + toppedUp),
          granted_balance: formatUsd(granted),
          topped_up_balance: formatUsd(toppedUp),
        },
      ],
    };
  },
);
