/** The monthly statement of an account, as JSON, CSV or a page to print. */
import { z } from 'zod';
import { isTimeZone } from '../calendar.ts';
import { statementCsv } from '../statements/statement-csv.ts';
import { statementPage } from '../statements/statement-page.ts';
import {
  statementExample,
  statementSchema,
  wireStatement,
} from '../statements/statement-schema.ts';
import { makeStatement } from '../statements/statement.ts';
import { accountContent } from './account-endpoint.ts';

const mediaTypes = {
  json: 'application/json',
  csv: 'text/csv; charset=utf-8',
  html: 'text/html; charset=utf-8',
};

export const statement = accountContent(
  {
    method: 'get',
    path: '/statements/{month}',
    summary: 'Statement of a month',
    description:
      'What came in and what was spent in a calendar month, summed from the entries of the ledger: ' +
      'opening balance, credits by source, usage by model and key, corrections, closing balance.',
    scope: 'admin',
    params: z.strictObject({
      month: z
        .string()
        .regex(/^[1-9]\d{3}-(0[1-9]|1[0-2])$/, 'expected a month such as 2026-11')
        .describe('YYYY-MM'),
    }),
    query: z.strictObject({
      format: z.enum(['json', 'csv', 'html']).default('json'),
      time_zone: z
        .string()
        .refine(isTimeZone, 'expected a time zone such as Europe/Berlin')
        .default('UTC')
        .describe('the zone whose midnights begin and end the month, by its IANA name'),
    }),
    content: {
      [mediaTypes.json]: statementSchema.meta({ examples: [statementExample] }),
      [mediaTypes.csv]: z
        .string()
        .describe('A row per line; amounts in nano-USD.')
        .meta({ examples: [statementCsv(statementExample)] }),
      [mediaTypes.html]: z
        .string()
        .describe('A page to print.')
        .meta({ examples: ['<!doctype html><title>Statement of acme, 2026-11</title>…'] }),
    },
  },
  async ({ services, c, tenantId, tenant, params, query }) => {
    const body = wireStatement(
      await makeStatement(tenant, {
        tenantId,
        month: params.month,
        timeZone: query.time_zone,
        nowMs: services.clock.nowMs(),
      }),
    );
    if (query.format === 'json') return c.json(body);
    const text = query.format === 'csv' ? statementCsv(body) : statementPage(body);
    return c.body(text, 200, {
      'content-type': mediaTypes[query.format],
      // The page is text and its own style: no script, no font, no picture from anywhere.
      'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
      'x-content-type-options': 'nosniff',
    });
  },
);
