/**
 * Decides to which addresses webhooks may be sent. They come from tenants, so without a rule a
 * tenant could have the edge ask what stands behind its firewall.
 */
import { hostFits } from '../fleet/worker-url.ts';

/** Names that never lead to a public host, whatever a resolver says. */
const privateEndings = ['.localhost', '.local', '.internal', '.home.arpa', '.lan'];

/** true for a host that the operator allows without TLS and on private addresses. */
export function isAllowedHost(url: URL, hosts: readonly string[]): boolean {
  return hosts.some((pattern) => hostFits(pattern, url));
}

/**
 * @param hosts patterns of the hosts that the operator allows
 * @returns why nothing may be sent there, or null
 */
export function refuseReceiver(text: string, hosts: readonly string[]): string | null {
  if (!URL.canParse(text)) return 'is not an absolute URL';
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return 'is not an https: URL';
  if (url.username !== '' || url.password !== '') return 'holds a user name or a password';
  if (text.includes('#')) return 'holds a fragment';
  if (isAllowedHost(url, hosts)) return null;
  if (url.protocol === 'http:') return 'is not an https: URL';
  const host = url.hostname.replace(/\.$/, '');
  // The URL parser has written every form of an IPv4 address as four numbers.
  if (/^\d+(\.\d+){3}$/.test(host) || host.startsWith('[')) return 'names an address, not a host';
  const isPrivate = !host.includes('.') || privateEndings.some((ending) => host.endsWith(ending));
  return isPrivate ? 'names a private host' : null;
}
