/** Payments that the directory knows as credited, and a ledger from an older copy lacks. */
import { formatUsd } from '../money-text.ts';
import type { Directory } from '../directory/directory-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';

const paymentsPerPage = 500;

/** A sentence for each, with the command that credits it again. */
export async function lostPayments(options: {
  readonly directory: Pick<Directory, 'creditedPayments'>;
  readonly tenant: string;
  readonly uncredited: Tenant['uncredited'];
}): Promise<string[]> {
  const { directory, tenant, uncredited } = options;
  const findings: string[] = [];
  for (let afterSource = ''; ;) {
    const page = { tenant, afterSource, limit: paymentsPerPage };
    const payments = await directory.creditedPayments(page);
    const last = payments.at(-1);
    if (last === undefined) return findings;
    const lost = await uncredited(payments.map(({ source }) => source));
    for (const { source, amountNanoUsd } of payments) {
      if (!lost.includes(source)) continue;
      const amount = formatUsd(amountNanoUsd);
      findings.push(
        `the payment ${source} of ${amount} USD was credited, and the ledger does not have it; ` +
          `to credit it again: credits add ${tenant} ${amount} --kind topped-up --source ${source}`,
      );
    }
    afterSource = last.source;
  }
}
