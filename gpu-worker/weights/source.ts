/**
 * The origin of a checkpoint's files. A source only lists files and reads byte ranges; what the
 * bytes mean is decided above it, so that a directory and an object store look alike.
 */
import { UserError } from '../../infra/user-error.ts';

export interface SourceFile {
  /** A plain file name, without folders. */
  readonly name: string;
  readonly bytes: number;
}

export interface WeightSource extends AsyncDisposable {
  /** The directory or URL, for messages. */
  readonly location: string;
  readonly files: readonly SourceFile[];
  /** Reads are best made of this many bytes, and of at most twice as many. */
  readonly partBytes: number;
  /** Parts that it reads side by side; more reads wait for their turn. */
  readonly parallelParts: number;
  /**
   * Fills all of `into` with the file's bytes from `start` on. Rejects with a CheckpointError that
   * names the file if it is missing, unreadable, ends before, or does not hold what it should.
   */
  read(name: string, start: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /**
   * Resolves once every byte of the file is known to be the one that was stored: the last word on
   * checksums over whole files, which can't be checked part by part. Rejects like `read`.
   */
  verify(name: string, signal?: AbortSignal): Promise<void>;
}

/** A checkpoint that can't be used: the message names the file, and the tensor if there is one. */
export class CheckpointError extends UserError {
  override readonly name = 'CheckpointError';
}

/** The size in bytes of a file of the source, or null if it has no such file. */
export function fileBytes(source: WeightSource, name: string): number | null {
  return source.files.find((file) => file.name === name)?.bytes ?? null;
}

/** Describes what went wrong below, for a message that says where. */
export function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
