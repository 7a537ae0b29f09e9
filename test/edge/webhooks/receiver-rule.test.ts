/** The rule on the URLs of webhooks, and on the addresses to which their names lead. */
import { expect, onTestFinished, test } from 'vitest';
import { isPublicAddress } from '../../../edge/node/public-address.ts';
import { createWebhookPost } from '../../../edge/node/webhook-post.ts';
import { refuseReceiver } from '../../../edge/webhooks/receiver-rule.ts';
import { startReceiver } from '../../support/edge/webhook-receiver.ts';

test.each([
  ['hook', 'absolute'],
  ['ftp://hooks.example/', 'https'],
  ['http://hooks.example/', 'https'],
  ['https://user:secret@hooks.example/', 'password'],
  ['https://user@hooks.example/', 'user name'],
  ['https://hooks.example/#part', 'fragment'],
  ['https://127.0.0.1/', 'address'],
  ['https://2130706433/', 'address'],
  ['https://0x7f.1/', 'address'],
  ['https://0177.0.0.1/', 'address'],
  ['https://93.184.216.34/', 'address'],
  ['https://[::1]/', 'address'],
  ['https://[::ffff:127.0.0.1]/', 'address'],
  ['https://localhost/', 'private'],
  ['https://LOCALHOST./', 'private'],
  ['https://intranet/', 'private'],
  ['https://a.localhost/', 'private'],
  ['https://db.internal/', 'private'],
  ['https://printer.local/', 'private'],
])('%s is refused: %s', (url, reason) => {
  expect(refuseReceiver(url, [])).toContain(reason);
});

test('public names by https pass, and what the operator allows', () => {
  expect(refuseReceiver('https://hooks.example:8443/a?b=c', [])).toBeNull();
  expect(refuseReceiver('http://127.0.0.1:9000/', ['127.0.0.1:9000'])).toBeNull();
  expect(refuseReceiver('http://127.0.0.1:9001/', ['127.0.0.1:9000'])).not.toBeNull();
  expect(refuseReceiver('http://bus.internal/', ['*.internal'])).toBeNull();
});

const hidden =
  '0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.53 169.254.169.254 172.31.255.255 192.168.0.1 198.19.0.1 ' +
  '224.0.0.1 255.255.255.255 :: ::1 fe80::1 fc00::1 fd12::1 ff02::1 ' +
  '::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1:: 2001::1 2001:db8::1 100::1';
const hiddenAddresses = hidden.split(' ');

test('private, special and reserved addresses are not public', () => {
  expect(hiddenAddresses.filter(isPublicAddress)).toEqual([]);
  const open = ['1.1.1.1', '93.184.216.34', '172.32.0.1', '2606:4700::1111', '2a00:1450::1'];
  expect(open.filter((address) => !isPublicAddress(address))).toEqual([]);
});

const post = { headers: {}, body: '{}', signal: AbortSignal.timeout(60_000) };

test.each(hiddenAddresses)('a name that leads to %s is not connected to', async (address) => {
  const resolve = async () => [
    { address: '93.184.216.34', family: 4 },
    { address, family: address.includes(':') ? 6 : 4 },
  ];
  const send = createWebhookPost({ hosts: [], resolve });
  const sent = send({ ...post, url: new URL('https://hooks.example/') });
  await expect(sent).rejects.toThrow('its host is on an address that is not public');
});

test('a name without addresses is an error, and one that the operator allows is reached', async () => {
  const send = createWebhookPost({ hosts: [], resolve: async () => [] });
  const url = new URL('https://hooks.example/');
  await expect(send({ ...post, url })).rejects.toThrow('has no address');
  const receiver = await startReceiver();
  onTestFinished(() => receiver.close());
  const resolve = async () => [{ address: '127.0.0.1', family: 4 }];
  const inside = createWebhookPost({ hosts: ['hooks.example'], resolve });
  const { port } = new URL(receiver.url);
  const answer = await inside({ ...post, url: new URL(`http://hooks.example:${port}/`) });
  expect(answer).toEqual({ status: 204, retryAfter: null });
});

test('a redirect is not followed', async () => {
  const target = await startReceiver();
  const receiver = await startReceiver((response) =>
    response.writeHead(302, { location: target.url }).end(),
  );
  onTestFinished(async () => void (await Promise.all([target.close(), receiver.close()])));
  const send = createWebhookPost({ hosts: ['127.0.0.1'] });
  expect(await send({ ...post, url: new URL(receiver.url) })).toMatchObject({ status: 302 });
  expect(target.received).toEqual([]);
});

test('an answer that never ends is left after its status', async () => {
  const receiver = await startReceiver((response) => {
    response.writeHead(200);
    const more = setInterval(() => response.write('x'.repeat(65_536)), 1);
    response.once('close', () => clearInterval(more));
  });
  onTestFinished(() => receiver.close());
  const send = createWebhookPost({ hosts: ['127.0.0.1'] });
  expect(await send({ ...post, url: new URL(receiver.url) })).toMatchObject({ status: 200 });
});
