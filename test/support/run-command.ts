/** Runs a command of `sift` in this process, which spares the start of one for each case. */
import { vi } from 'vitest';
import { createProgram, runProgram } from '../../infra/program.ts';
import type { CommandModule } from '../../infra/program.ts';

export async function runCommand(
  configure: CommandModule['configure'],
  ...args: readonly string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += String(text);
    return true;
  });
  const program = createProgram('sift test', 'a command under test').configureOutput({
    writeErr: (text) => (stderr += text),
  });
  configure(program);
  const status = await runProgram(program, args);
  write.mockRestore();
  return { status, stdout, stderr };
}
