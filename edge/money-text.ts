/** Amounts as text, for people and for DeepSeek's balance: exact, without floats. */

const nanoPerUsd = 1_000_000_000n;

/** `110.00`, `0.000000028`: at least two decimals, and as many as the amount has. */
export function formatUsd(nanoUsd: number): string {
  const amount = BigInt(nanoUsd);
  const sign = amount < 0n ? '-' : '';
  const size = amount < 0n ? -amount : amount;
  const decimals = (size % nanoPerUsd).toString().padStart(9, '0').replace(/0+$/, '');
  return `${sign}${size / nanoPerUsd}.${decimals.padEnd(2, '0')}`;
}
