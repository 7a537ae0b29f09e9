/** The flags of `sift render` and `sift parse` that say which chat format is meant. */
import type { CommandModule } from '../../infra/program.ts';
import { UsageError } from '../../infra/user-error.ts';
import { chatFormatNames } from '../chat-formats/chat-format.ts';
import type { ChatFormatName } from '../chat-formats/chat-format.ts';

export interface FormatFlags {
  readonly model?: string;
  readonly format?: string;
}

type Program = Parameters<CommandModule['configure']>[0];

export function addFormatFlags(program: Program): void {
  program
    .option(
      '--model <location>',
      'checkpoint: a directory, a file:// URL or s3://bucket/prefix; only its tokenizer and chat ' +
        'format are read',
    )
    .option('--format <name>', `chat format: ${chatFormatNames.join(', ')}`);
}

/** The format that is named; null where the checkpoint's own is meant. @throws UsageError */
export function readFormat({ model, format }: FormatFlags): ChatFormatName | null {
  if (format === undefined) {
    if (!model) throw new UsageError('--model or --format is missing');
    return null;
  }
  const known = chatFormatNames.find((name) => name === format);
  if (known !== undefined) return known;
  throw new UsageError(`--format: ${format} is none of ${chatFormatNames.join(', ')}`);
}
