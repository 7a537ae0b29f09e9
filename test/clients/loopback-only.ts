/** Preloaded into a program, it refuses every connection that would leave this machine. */
import { Socket } from 'node:net';

const connect = Socket.prototype.connect;

/** Node calls it with the options that it has made of all arguments, in an array. */
function connectWithin(this: Socket, ...args: unknown[]): Socket {
  const [first] = args;
  const [options] = Array.isArray(first) ? first : [first];
  const host: unknown = options?.host ?? 'localhost';
  if (host !== '127.0.0.1' && host !== 'localhost') {
    console.error(`this program called ${String(host)}`);
    process.exit(1);
  }
  // The arguments are those of the call that this stands in for.
  return Reflect.apply(connect, this, args) as Socket;
}
Socket.prototype.connect = connectWithin;
