/** A scripted engine of any make behind real HTTP; it breaks where its scenario says. */
import { serve } from '@hono/node-server';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import { deepseek, deepseekFiles } from '../../gpu-worker/tokenizer/fixture.ts';
import { answering, httpWorker } from '../worker/http-worker.ts';
import type { Script } from '../worker/scripted-engine.ts';
import { plainScenario, promptTokens, validationMessage } from './scenario.ts';
import type { EngineMake, Scenario } from './scenario.ts';

export interface ScriptedServer {
  readonly url: string;
  /** The scenario of the requests from now on. */
  scenario: Scenario;
  /** The prompt tokens of the last request. */
  promptTokens(): number;
  /** Requests that came so far, and those of them whose client left before their end. */
  readonly seen: { requests: number; left: number };
  close(): Promise<void>;
}

export async function startEngine(make: EngineMake, model: string): Promise<ScriptedServer> {
  const seen = { requests: 0, left: 0 };
  const answer = (path: string, asked: string, res: ServerResponse): void => {
    const { scenario } = engine;
    const asJson = (json: object) => {
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(json));
    };
    if (path === '/health') return asJson({});
    if (path === '/v1/models') {
      const listed = { id: model, object: 'model', created: 1_800_000_000, owned_by: make.name };
      return asJson({ object: 'list', data: [listed] });
    }
    // The edge asks for a whole answer to learn of cached tokens: its counts alone matter.
    if (JSON.parse(asked).stream !== true) {
      const last = make.text(scenario, model).end.at(-1) ?? '';
      return asJson(JSON.parse(last.replace(/^data: /, '')));
    }
    seen.requests++;
    const { fault } = scenario;
    if (fault === 'validation' || fault === 'overflow') {
      const { status, body } = make[fault];
      res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
      return;
    }
    const isChat = path === '/v1/chat/completions';
    const { pieces, end } = isChat ? make.chat(scenario, model) : make.text(scenario, model);
    res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
    res.on('close', () => void (seen.left += res.writableFinished ? 0 : 1));
    for (const piece of pieces) res.write(piece);
    if (fault === 'silence') return;
    if (fault === 'death') {
      setTimeout(() => res.destroy(), 20);
      return;
    }
    if (fault === 'error-event') {
      res.end(make.streamError);
      return;
    }
    for (const piece of end) res.write(piece);
    res.end(scenario.sendsDone ? 'data: [DONE]\n\n' : '');
  };
  const server = createServer((req, res) => {
    const pieces: Buffer[] = [];
    req.on('data', (piece: Buffer) => pieces.push(piece));
    req.on('end', () => answer(req.url ?? '', Buffer.concat(pieces).toString(), res));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  const engine: ScriptedServer = {
    url: `http://127.0.0.1:${port}`,
    scenario: plainScenario,
    promptTokens: () => promptTokens,
    seen,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return engine;
}

/** Our own worker with a script in place of its model: the same scenarios by the real HTTP side. */
export async function startOwnWorker(model: string): Promise<ScriptedServer> {
  const worker = await httpWorker({
    script: answering(),
    vocabSize: 129_280,
    // A format that has tools and thinking.
    model: {
      id: model,
      tokenizer: deepseek,
      chatFormat: openChatFormat({
        tokenizerConfig: deepseekFiles.tokenizerConfig,
        tokenizer: deepseek,
      }),
    },
  });
  const server = await new Promise<ReturnType<typeof serve>>((resolve) => {
    const started = serve({ fetch: worker.app.fetch, port: 0, hostname: '127.0.0.1' }, () =>
      resolve(started),
    );
  });
  const cut = (): void => {
    if ('closeAllConnections' in server) server.closeAllConnections();
  };
  const hung = new Set<() => void>();
  server.on('connection', (socket: Socket) => {
    socket.once('close', () => hung.forEach((resume) => resume()));
  });
  /** Hangs until the connection ends: an engine that hangs still hears of a client that left. */
  const hang = () => new Promise<void>((resolve) => void hung.add(resolve));
  // A TCP server that listens has an address of this kind.
  const { port } = server.address() as AddressInfo;
  let scenario = plainScenario;
  return {
    url: `http://127.0.0.1:${port}`,
    get scenario() {
      return scenario;
    },
    set scenario(next) {
      scenario = next;
      worker.engine.script = scriptOf(next, { cut, hang });
    },
    promptTokens: () => worker.engine.requests.at(-1)?.promptTokens.length ?? 0,
    get seen() {
      return { requests: worker.engine.requests.length, left: worker.engine.aborted.size };
    },
    async close() {
      cut();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
      await worker[Symbol.asyncDispose]();
    },
  };
}

function scriptOf(
  scenario: Scenario,
  connection: { readonly cut: () => void; readonly hang: () => Promise<void> },
): Script {
  const { reasoning, words, calls, matchedStop, cachedTokens, fault } = scenario;
  const written = calls.flatMap(({ name, pieces }, index) => [
    `${index === 0 ? '<｜tool▁calls▁begin｜>' : ''}<｜tool▁call▁begin｜>${name}<｜tool▁sep｜>${pieces[0]}`,
    ...pieces.slice(1, -1),
    `${pieces.at(-1)}<｜tool▁call▁end｜>${index === calls.length - 1 ? '<｜tool▁calls▁end｜>' : ''}`,
  ]);
  return {
    answer(request) {
      const end = request.reasoningEndToken;
      const thought = reasoning.map((text) => ({ token: 100, text }));
      return [
        ...(end === null ? [] : [...thought, { token: end, text: '' }]),
        ...[...words, ...written].map((text) => ({ token: 101, text })),
      ];
    },
    refuse() {
      if (fault === 'validation') {
        return { kind: 'invalid', message: validationMessage, retryAfterSeconds: null };
      }
      if (fault !== 'overflow') return null;
      const message =
        "This model's maximum context length is 8192 tokens; the prompt has 8193 tokens.";
      return { kind: 'too-long', message, retryAfterSeconds: null };
    },
    async beforeStep(_, step) {
      // The first step computes the prompt; a word each follows.
      if (step <= words.length + 1) return;
      if (fault === 'error-event') throw new Error('the engine failed');
      if (fault === 'death') setTimeout(connection.cut, 20);
      if (fault === 'death' || fault === 'silence') await connection.hang();
    },
    ...(cachedTokens !== null && { cachedTokens }),
    ...(matchedStop !== null && { stopMatch: matchedStop }),
  };
}
