/**
 * Decides which addresses the edge sends requests, prompts and its token to. An announcement with
 * another address is refused: a worker of it would take placements that can only fail.
 */

/** `host`, `host:port`, `*.domain` or `*.domain:port`, in lower case; IPv6 in brackets. */
const hostPattern = /^(?:(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::\d{1,5})?$/;

export function isHostPattern(text: string): boolean {
  return hostPattern.test(text);
}

/**
 * @param hosts patterns of which one must fit; an empty list admits every host
 * @returns why the address is refused, or null
 */
export function refuseWorkerUrl(text: string, hosts: readonly string[]): string | null {
  if (!URL.canParse(text)) return 'url is not an absolute URL';
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    return `url begins with ${url.protocol}, which is neither http: nor https:`;
  }
  if (url.username !== '' || url.password !== '') {
    return 'url holds a user name or a password; workers are shown WORKER_TOKEN';
  }
  if (text.includes('?') || text.includes('#')) return 'url holds a query or a fragment';
  if (hosts.length === 0 || hosts.some((pattern) => hostFits(pattern, url))) return null;
  return `url has the host ${url.host}, which EDGE_WORKER_HOSTS does not list`;
}

/** Says if a pattern of `isHostPattern` fits the URL's host and port. */
export function hostFits(pattern: string, url: URL): boolean {
  const [, name = '', port] = /^(.*?)(?::(\d+))?$/.exec(pattern) ?? [];
  const ownPort = url.port || (url.protocol === 'https:' ? '443' : '80');
  if (port !== undefined && Number(port) !== Number(ownPort)) return false;
  const hostname = url.hostname.replace(/\.$/, '');
  return name.startsWith('*.') ? hostname.endsWith(name.slice(1)) : hostname === name;
}
