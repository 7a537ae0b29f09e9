import { expect, test } from 'vitest';
import { fileChecksum } from '../../../../gpu-worker/weights/s3/file-checksum.ts';

const $metadata = {};
/** The check value of CRC catalogues is taken over these bytes. */
const bytes = Buffer.from('123456789');
const base64 = (hex: string) => Buffer.from(hex, 'hex').toString('base64');

test.each([
  ['CRC64NVME', { ChecksumCRC64NVME: base64('ae8b14860a799888') }],
  ['CRC32C', { ChecksumCRC32C: base64('e3069283') }],
  ['CRC32', { ChecksumCRC32: base64('cbf43926') }],
  ['SHA-1', { ChecksumSHA1: base64('f7c3bc1d808e04732adf679965ccc34ca7ae3441') }],
  [
    'SHA-256',
    {
      ChecksumSHA256: base64('15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225'),
    },
  ],
  ['MD5', { ETag: '"25f9e794323b453885f5181f1b624d0b"' }],
])('%s of any pieces is that of the whole', async (algorithm, head) => {
  const checksum = fileChecksum({ $metadata, ...head });
  expect(checksum?.algorithm).toBe(algorithm);
  const running = checksum?.start();
  running?.update(bytes.subarray(0, 4));
  running?.update(bytes.subarray(4));
  expect(await running?.digest()).toBe(checksum?.expected);
});

test('the strongest that is given is taken', () => {
  const head = { ChecksumCRC32: 'AAAA', ChecksumSHA256: 'BBBB', ETag: `"${'0'.repeat(32)}"` };
  expect(fileChecksum({ $metadata, ...head })?.algorithm).toBe('SHA-256');
});

test.each([
  ['an upload in parts', { ETag: '"25f9e794323b453885f5181f1b624d0b-3"' }],
  [
    'encryption by KMS',
    { ETag: '"25f9e794323b453885f5181f1b624d0b"', ServerSideEncryption: 'aws:kms' as const },
  ],
  [
    'a key of the customer',
    { ETag: '"25f9e794323b453885f5181f1b624d0b"', SSECustomerAlgorithm: 'AES256' },
  ],
  ['a checksum of checksums', { ChecksumSHA256: 'AAAA', ChecksumType: 'COMPOSITE' as const }],
  ['no checksum at all', {}],
])('%s leaves nothing to check by', (_, head) => {
  expect(fileChecksum({ $metadata, ...head })).toBe(null);
});
