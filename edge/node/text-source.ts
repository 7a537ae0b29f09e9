/** Text that a command is given by the name of a file, or `-` for its standard input. */
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';

export async function readTextSource(name: string, input: NodeJS.ReadableStream): Promise<string> {
  return name === '-' ? await text(input) : await readFile(name, 'utf8');
}
