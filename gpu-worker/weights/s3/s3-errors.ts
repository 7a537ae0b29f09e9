/** Tells what an object store's refusals mean to the operator, and which may heal by themselves. */
import { CheckpointError, reasonOf } from '../source.ts';

/** Bytes that came are not the bytes that were asked for; another try may bring them. */
export class DamagedPart extends Error {
  override readonly name = 'DamagedPart';
}

/** The remedy for each refusal, by the code that S3 and its lookalikes give. */
const remedies: Readonly<Record<string, string>> = {
  AccessDenied: 'access is denied: these credentials need s3:ListBucket and s3:GetObject',
  AllAccessDisabled: 'access is disabled for this bucket',
  AuthorizationHeaderMalformed: 'the bucket is in another region: set AWS_REGION',
  CredentialsProviderError:
    'no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE',
  ExpiredToken: 'the credentials have expired: renew them',
  ExpiredTokenException: 'the credentials have expired: renew them',
  InvalidAccessKeyId: 'the store does not know AWS_ACCESS_KEY_ID',
  InvalidToken: 'the store does not accept AWS_SESSION_TOKEN',
  NoSuchBucket: 'there is no such bucket',
  PermanentRedirect: 'the bucket is in another region: set AWS_REGION',
  RequestTimeTooSkewed: "this machine's clock is wrong",
  SignatureDoesNotMatch: 'the store refuses the signature: check AWS_SECRET_ACCESS_KEY',
  TokenRefreshRequired: 'the credentials have expired: renew them',
};

const transientCodes = new Set([
  'InternalError',
  'RequestTimeout',
  'ServiceUnavailable',
  'SlowDown',
  'ThrottlingException',
  'TooManyRequests',
]);

/** `where` names the object or the bucket. */
export function toCheckpointError(where: string, error: unknown): CheckpointError {
  if (error instanceof CheckpointError) return error;
  return new CheckpointError(`${where}: ${meaning(error)}`, { cause: error });
}

function meaning(error: unknown): string {
  const { code, status } = describe(error);
  const remedy = remedies[code];
  if (remedy !== undefined) return status === null ? remedy : `${remedy} (${code})`;
  if (status === 412 || status === 416) return 'it changed in the store while it was being loaded';
  if (status === 404) return 'it is not in the store, or no longer';
  if (status === 403) return `${remedies.AccessDenied} (403)`;
  if (status === 301 || status === 307) return `${remedies.PermanentRedirect} (${status})`;
  const answer = status === null ? '' : ` (${code}, status ${status})`;
  return `${reasonOf(error) || code}${answer}`;
}

/** Tells whether the same request may be answered well a moment later. */
export function isTransient(error: unknown): boolean {
  if (error instanceof DamagedPart) return true;
  if (error instanceof CheckpointError) return false;
  const { code, status } = describe(error);
  if (code in remedies) return false;
  if (transientCodes.has(code)) return true;
  // An answer without a status never came whole: it was refused, reset, cut or timed out.
  return status === null || status === 408 || status === 429 || status >= 500 || status < 300;
}

/** The SDK's errors carry the store's code as their name; those of sockets have a code. */
function describe(error: unknown): { code: string; status: number | null } {
  if (!(error instanceof Error)) return { code: 'unknown', status: null };
  const metadata: unknown = '$metadata' in error ? error.$metadata : null;
  const status =
    typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata
      ? Number(metadata.httpStatusCode)
      : null;
  return { code: error.name, status };
}
