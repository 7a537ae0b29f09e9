/** The edge's settings, once they are checked (`read-settings.ts` reads them). */
export interface EdgeSettings {
  /** Newest first; all verify, the newest signs. */
  readonly keySigningSecrets: readonly string[];
  readonly cacheSecret: string;
  readonly workerToken: string;
  readonly adminToken: string;
  /** Newest first, as receipt-keys.ts reads them; none: no receipts. */
  readonly receiptKeys: readonly string[];
  readonly stripe: { readonly secretKey: string; readonly webhookSecret: string } | null;
  readonly bodyBytesMax: number;
  readonly keepAliveMs: number;
  readonly outputTokensDefault: number;
  /** Output tokens of each answer that are held at first; absent: the default. */
  readonly leaseTokens?: number;
  /** A request that states no longest wait for a worker is refused if it would wait longer. */
  readonly queueMsMax: number;
  /** A worker that sends nothing for this long, not even a comment, is taken for dead. */
  readonly workerSilenceMsMax?: number;
  /** A whole answer that takes longer begins with empty lines, and has no cost header. */
  readonly wholeAnswerQuietMs?: number;
  /** Responses are stored unless their request has `store: false`, as OpenAI does. */
  readonly storesUnasked?: boolean;
  /** Patterns of hosts that webhooks may have without TLS and on private addresses. */
  readonly webhookHosts?: readonly string[];
  /** A client that sends less than 64 KiB of its body in this time is refused. */
  readonly bodyWindowMs?: number;
}
