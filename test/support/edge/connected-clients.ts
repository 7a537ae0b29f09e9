/** Clients that each keep a connection of their own, which the system gives to some thread. */
import { Agent, request as requestHttp } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { once } from 'node:events';

export interface ConnectedClient {
  send(request: {
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
    readonly signal?: AbortSignal;
  }): Promise<ClientAnswer>;
  close(): void;
}

export interface ClientAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

export function connectClients(url: string, count: number): readonly ConnectedClient[] {
  return Array.from({ length: count }, () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    return {
      async send({ path, headers, body, signal }) {
        const request = requestHttp(new URL(path, url), {
          method: 'POST',
          agent,
          headers: { ...headers, 'content-type': 'application/json' },
          ...(signal !== undefined && { signal }),
        });
        request.end(body);
        // A request emits its response alone.
        const [response] = (await once(request, 'response')) as [IncomingMessage];
        let text = '';
        for await (const piece of response) text += String(piece);
        return { status: response.statusCode ?? 0, headers: response.headers, text };
      },
      close: () => agent.destroy(),
    };
  });
}
