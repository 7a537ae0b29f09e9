/** Commands find the edge that they ask here, and the reason why it did not answer. */
import { InvalidArgumentError } from '@commander-js/extra-typings';

/** @throws InvalidArgumentError for what is no URL of a web server. */
export function urlOf(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol)) return text.replace(/\/+$/, '');
  throw new InvalidArgumentError('Expected a URL such as http://edge.example:8787.');
}

/** The edge of EDGE_URL, or else of this machine. */
export function edgeUrlOf(env: Readonly<Record<string, string | undefined>>): string {
  return urlOf(env['EDGE_URL'] || `http://127.0.0.1:${env['PORT'] || '8787'}`);
}

/** fetch says "fetch failed" and keeps what happened in the cause. */
export function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  if (!(cause.cause instanceof Error)) return cause.message;
  // The message is empty where several addresses were tried, and the code says why.
  return cause.cause.message || ('code' in cause.cause ? String(cause.cause.code) : cause.message);
}
