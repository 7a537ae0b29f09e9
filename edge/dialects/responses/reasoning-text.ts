/**
 * `encrypted_content` of reasoning: what clients that store nothing send back. The reasoning stands
 * in the answer in the clear, so that this is its text in another form and hides nothing.
 */
const mark = 'sift1.';

export function sealReasoning(text: string): string {
  return mark + Buffer.from(text).toString('base64url');
}

/** @returns null for what another API has made. */
export function openReasoning(sealed: string): string | null {
  if (!sealed.startsWith(mark)) return null;
  return Buffer.from(sealed.slice(mark.length), 'base64url').toString();
}
