import { expect, test } from 'vitest';
import { workerSettings } from '../../gpu-worker/settings.ts';
import { addSettings, createProgram } from '../../infra/program.ts';
import { settingsOfArgs } from '../support/worker/worker-settings.ts';

test('a flag wins over its variable, and both over the default', () => {
  const env = { SIFT_MODEL: '/models/env', WORKER_PORT: '9001' };
  expect(settingsOfArgs([], env)).toMatchObject({
    model: '/models/env',
    port: 9001,
    host: '127.0.0.1',
  });
  expect(settingsOfArgs(['--model', '/models/flag', '--port', '0'], env)).toMatchObject({
    model: '/models/flag',
    modelId: 'sift-flag',
    port: 0,
  });
});

test('the model is named after its directory, also when that is a file URL', () => {
  expect(settingsOfArgs(['--model', 'file:///models/big'], {}).modelId).toBe('sift-big');
  expect(settingsOfArgs(['--model', '/models/big/', '--model-id', 'own'], {}).modelId).toBe('own');
});

test.each([
  [[], {}, '--model: is missing: give a checkpoint directory'],
  [['--port', '70000'], { SIFT_MODEL: 'm' }, '--port: '],
  [[], { SIFT_MODEL: 'm', WORKER_PORT: 'http' }, 'WORKER_PORT: '],
  [
    [],
    { SIFT_MODEL: 'm', WORKER_TOKEN: 'short' },
    'WORKER_TOKEN: must have at least 16 characters',
  ],
  [['--backend', 'tpu'], { SIFT_MODEL: 'm' }, '--backend: '],
  [['--edge', 'ftp://edge'], { SIFT_MODEL: 'm' }, '--edge: '],
  [['--sequences', '0'], { SIFT_MODEL: 'm' }, '--sequences: '],
  [['--sequence', '1'], { SIFT_MODEL: 'm' }, 'Did you mean --sequences?'],
  [['extra'], { SIFT_MODEL: 'm' }, 'too many arguments'],
  [['--token', 'secret'], { SIFT_MODEL: 'm' }, "unknown option '--token'"],
])('%j with %j is refused by name', (args, env, message) => {
  expect(() => settingsOfArgs(args, env)).toThrow(message);
});

test('an empty variable counts as not set', () => {
  expect(settingsOfArgs([], { SIFT_MODEL: 'm', WORKER_PORT: '' }).port).toBe(8788);
});

test('the help names every flag and variable once', () => {
  let help = '';
  const program = addSettings(
    createProgram('sift worker', 'one worker'),
    workerSettings,
    () => {},
  ).configureOutput({
    writeOut: (text) => (help += text),
  });
  expect(() => program.parse(['--help'], { from: 'user' })).toThrow('outputHelp');
  expect(help.match(/WORKER_TOKEN/g)).toHaveLength(1);
  expect(help).toMatch(/--cache-tokens <value>[^[]*\[SIFT_CACHE_TOKENS\]/);
});
