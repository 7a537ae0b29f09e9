/** The calls between threads of one edge on Node, beside those of tenants and the fleet. */
import type { MessagePort } from 'node:worker_threads';
import type { LogLevel } from '../../../infra/log.ts';
import type { DirectoryChange } from '../../directory/directory-cache.ts';
import type { EndedRequest } from '../../observe/ended-request.ts';
import type { EdgeSettings } from '../../settings/edge-settings.ts';
import type { NodeSettings } from '../../settings/read-settings.ts';

/** One thread, as the first one starts and ends it and as the others call it. */
export interface EdgeThread {
  /** Resolves once the thread answers calls: to load its code takes seconds. */
  started(): Promise<void>;
  /** The longest wait for its event loop since this was asked last. */
  takeLongestBlockMs(): Promise<number>;
  /** Begins to take requests; resolves with the port. @throws UserError */
  listen(port: number): Promise<number>;
  /** Takes nobody new, and waits for the requests under way. */
  stopServing(): Promise<void>;
  /** Waits for what outlives its answers, once no thread has requests any more. */
  finishWork(): Promise<void>;
  closeDatabases(): Promise<void>;
  /** Makes the database of one of the thread's own tenants, unless it is there. */
  createDatabase(tenant: string): Promise<void>;
  /** Forgets what the thread has read of the directory and another one has changed. */
  forget(change: DirectoryChange): Promise<void>;
}

export const edgeThreadMethods = [
  'started',
  'takeLongestBlockMs',
  'listen',
  'stopServing',
  'finishWork',
  'closeDatabases',
  'createDatabase',
  'forget',
] as const satisfies readonly (keyof EdgeThread)[];

/** The first thread has these for all of the process. */
export interface Process {
  log(level: LogLevel, event: string, fields: Readonly<Record<string, unknown>>): Promise<void>;
  warnings(): Promise<readonly string[]>;
  observe(ended: EndedRequest): Promise<void>;
  metrics(): Promise<string>;
  checkRecords(): Promise<void>;
}

export const processMethods = [
  'log',
  'warnings',
  'observe',
  'metrics',
  'checkRecords',
] as const satisfies readonly (keyof Process)[];

/** The settings of a thread's edge, with the secrets that were given or made. */
export type ThreadSettings = NodeSettings & EdgeSettings;

/** A thread is started with these. */
export interface ThreadStart {
  readonly own: number;
  readonly folder: string;
  readonly settings: ThreadSettings;
  readonly ports: ReadonlyMap<number, MessagePort>;
  /** The number of requests that wait in the fleet, in memory that all threads share. */
  readonly waits: Int32Array<SharedArrayBuffer>;
}
