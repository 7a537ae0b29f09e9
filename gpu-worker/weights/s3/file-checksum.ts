/**
 * The checksum that a store recorded for a whole object, in the strongest form that it gives. A
 * checksum of checksums, which multipart uploads may leave, depends on parts that nobody knows any
 * more, and proves nothing here.
 */
import type { HeadObjectCommandOutput } from '@aws-sdk/client-s3';
import { Crc32c, Crc64Nvme } from '@aws-sdk/checksums/crc';
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';

export interface FileChecksum {
  readonly algorithm: string;
  /** Base64. */
  readonly expected: string;
  start(): RunningChecksum;
}

export interface RunningChecksum {
  update(bytes: Uint8Array): void;
  /** Base64. */
  digest(): Promise<string>;
}

/** Null if the store gives nothing but the size. */
export function fileChecksum(head: HeadObjectCommandOutput): FileChecksum | null {
  const candidates: [string, string | undefined, () => RunningChecksum][] = [
    ['SHA-256', head.ChecksumSHA256, () => runHash('sha256')],
    ['CRC64NVME', head.ChecksumCRC64NVME, () => runCrc(new Crc64Nvme())],
    ['CRC32C', head.ChecksumCRC32C, () => runCrc(new Crc32c())],
    ['CRC32', head.ChecksumCRC32, startCrc32],
    ['SHA-1', head.ChecksumSHA1, () => runHash('sha1')],
    ['MD5', md5Of(head), () => runHash('md5')],
  ];
  for (const [algorithm, expected, start] of candidates) {
    // A checksum of checksums ends in a dash and their number.
    const isWhole = head.ChecksumType !== 'COMPOSITE' || algorithm === 'MD5';
    if (expected !== undefined && isWhole && !expected.includes('-')) {
      return { algorithm, expected, start };
    }
  }
  return null;
}

/**
 * An ETag is the MD5 of the object unless it was uploaded in parts or encrypted with a key of KMS.
 */
function md5Of(head: HeadObjectCommandOutput): string | undefined {
  const hex = /^"?([0-9a-f]{32})"?$/.exec(head.ETag ?? '')?.[1];
  const encryption = head.ServerSideEncryption;
  const isPlain = encryption === undefined || encryption === 'AES256';
  if (hex === undefined || !isPlain || head.SSECustomerAlgorithm !== undefined) return undefined;
  return Buffer.from(hex, 'hex').toString('base64');
}

function runHash(name: string): RunningChecksum {
  const running = createHash(name);
  return {
    update: (bytes) => void running.update(bytes),
    digest: async () => running.digest('base64'),
  };
}

function runCrc(crc: {
  update(bytes: Uint8Array): unknown;
  digest(): Promise<Uint8Array>;
}): RunningChecksum {
  return {
    update: (bytes) => void crc.update(bytes),
    digest: async () => Buffer.from(await crc.digest()).toString('base64'),
  };
}

function startCrc32(): RunningChecksum {
  let value = 0;
  return {
    update(bytes) {
      value = crc32(bytes, value);
    },
    async digest() {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value);
      return bytes.toString('base64');
    },
  };
}
