/** Connections that are slow, many, or broken off, while the victim asks on. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { verdictOf } from './attack.ts';
import type { Attack, Verdict } from './attack.ts';
import { servedModel } from './system.ts';
import type { HostileSystem } from './system.ts';

const connections = 300;

const stream = JSON.stringify({
  model: servedModel,
  messages: [{ role: 'user', content: 'Go on.' }],
  max_tokens: 200,
  stream: true,
});

const headOf = (system: HostileSystem, length: number): string =>
  `POST /v1/chat/completions HTTP/1.1\r\nhost: a.example\r\n` +
  `authorization: Bearer ${system.attacker.key}\r\ncontent-length: ${length}\r\n`;

/** The bytes that each connection sends, piece by piece; it reads nothing. */
const slow: Readonly<Record<string, (system: HostileSystem) => readonly string[]>> = {
  'say nothing': () => [],
  'send a head a byte at a time': (system) => headOf(system, 10).slice(0, 40).split(''),
  'send a body a byte at a time': (system) => [
    `${headOf(system, 500)}\r\n`,
    ...stream.slice(0, 40),
  ],
  'ask and never read': (system) => [`${headOf(system, stream.length)}\r\n${stream}`],
  'ask twenty times without reading': (system) => [
    `${headOf(system, stream.length)}\r\n${stream}`.repeat(20),
  ],
};

export const connectionAttacks: readonly Attack[] = [
  ...Object.entries(slow).map(([name, piecesOf]): Attack => ({
    name: `${connections} connections that ${name}`,
    secondsMax: 90,
    run: (system) => besides(system, piecesOf(system)),
  })),
  {
    name: 'a thousand connections that are reset at once',
    async run(system) {
      const { hostname, port } = new URL(system.edge.url);
      for (let round = 0; round < 10; round++) {
        const sockets = Array.from({ length: 100 }, () => connect(Number(port), hostname));
        await Promise.all(sockets.map(connected));
        for (const socket of sockets) socket.resetAndDestroy();
      }
      return victimIsServed(system);
    },
  },
];

async function besides(system: HostileSystem, pieces: readonly string[]): Promise<Verdict> {
  const { hostname, port } = new URL(system.edge.url);
  const sockets = Array.from({ length: connections }, () => {
    const socket = connect(Number(port), hostname);
    socket.on('error', () => {});
    socket.pause();
    return socket;
  });
  try {
    await Promise.all(sockets.map(connected));
    for (const piece of pieces) {
      for (const socket of sockets) if (!socket.destroyed) socket.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return await victimIsServed(system);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

async function connected(socket: Socket): Promise<void> {
  socket.on('error', () => {});
  if (socket.connecting)
    await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve));
}

async function victimIsServed(system: HostileSystem): Promise<Verdict> {
  for (let count = 0; count < 5; count++) {
    const answer = await system.post(system.victim, '/v1/chat/completions', {
      messages: [{ role: 'user', content: 'Hi' }],
      max_tokens: 1,
    });
    const text = await answer.text();
    if (!answer.ok) return { broken: `the victim got ${answer.status} ${text.slice(0, 200)}` };
  }
  return verdictOf(system.edge.isRunning() ? null : 'the edge ended');
}
