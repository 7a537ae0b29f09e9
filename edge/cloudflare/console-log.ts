/** The log in workerd: each event is an object of its own, which the platform's log keeps. */
import type { Log } from '../../infra/log.ts';

export const logToConsole: Log = (level, event, fields) => {
  console[level === 'info' ? 'log' : level]({ event, ...fields });
};
