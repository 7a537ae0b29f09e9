/** Lines of CSV (RFC 4180) that no spreadsheet takes for a program. */

export function csvLine(values: readonly (string | number | null)[]): string {
  return `${values.map(csvField).join(',')}\r\n`;
}

function csvField(value: string | number | null): string {
  if (value === null) return '';
  if (typeof value === 'number') return String(value);
  // An exact amount, such as -0.50, is a number and no formula.
  if (/^-?\d+\.\d+$/.test(value)) return value;
  // A spreadsheet runs text that begins like a formula, in the wide forms of East Asia too; a quote
  // in front makes it text again.
  const text = /^\s*[=+\-@＝＋－＠]|^[\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
