/**
 * Takes out of an engine's message what no client may see: addresses, paths and secrets of the
 * operator's.
 */

/** Values that no message may repeat. */
export type Secrets = readonly string[];

/** The secrets of a worker: its address, and the token that the edge shows to it. */
export function secretsOf(url: string, token: string | null): Secrets {
  const { host, hostname } = new URL(url);
  // A name without dots may be an ordinary word, such as the engine's.
  const names = hostname.includes('.') ? [host, hostname] : [host];
  return [...(token === null ? [] : [token]), ...names];
}

const charactersMax = 1_000;
const removed = '[removed]';

const patterns: readonly RegExp[] = [
  // URLs, then hosts with a port.
  /\b[a-z][a-z0-9+.-]*:\/\/[^\s'"<>)\]]+/gi,
  /\b(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?\b/g,
  /\b(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+):\d{2,5}\b/gi,
  // Tokens and keys, and long hexadecimal values such as a cache salt.
  /\bbearer\s+[\w.~+/=-]+/gi,
  /\b(?:sk|pk|hf|ghp|gho|nvapi|xox[a-z])[-_][\w.-]{8,}/g,
  /\b[0-9a-f]{32,}\b/gi,
  // Paths of two and more folders.
  /\b[A-Za-z]:\\[^\s'",;)]+/g,
  /(?<![\w.)\]])~?(?:\/[\w.@+~-]+){2,}\/?(?::\d+)?/g,
];

/** Cuts a message to one line of at most a thousand characters. */
export function cleanMessage(message: string, secrets: Secrets = []): string {
  const [beforeTraceback = ''] = message.split(/traceback \(most recent call last\)/i);
  let text = beforeTraceback;
  for (const secret of secrets) if (secret.length >= 4) text = text.replaceAll(secret, removed);
  for (const pattern of patterns) text = text.replaceAll(pattern, removed);
  // oxlint-disable-next-line no-control-regex -- terminals and logs must not see them
  text = text.replaceAll(/[\s\u0000-\u001f\u007f]+/g, ' ').trim();
  if (text === '') return 'The model cannot take this request.';
  return text.length <= charactersMax ? text : `${text.slice(0, charactersMax - 1)}…`;
}
