/** Compiles CUDA C++ for the GPU that was found. */
import { CudaMissing, loadLibrary } from './libraries.ts';

export class Compiler {
  /** Such as `13.0`. */
  readonly version: string;
  readonly #create: (...args: unknown[]) => number;
  readonly #compile: (...args: unknown[]) => number;
  readonly #destroy: (...args: unknown[]) => number;
  readonly #logSize: (...args: unknown[]) => number;
  readonly #log: (...args: unknown[]) => number;
  readonly #cubinSize: (...args: unknown[]) => number;
  readonly #cubin: (...args: unknown[]) => number;

  /** @throws CudaMissing without NVRTC. */
  constructor() {
    const library = loadLibrary('nvrtc');
    const version: (...args: unknown[]) => number = library.func(
      'int nvrtcVersion(_Out_ int*, _Out_ int*)',
    );
    const [major, minor]: [[number], [number]] = [[0], [0]];
    if (version(major, minor) !== 0) throw new CudaMissing('NVRTC does not tell its version');
    this.version = `${major[0]}.${minor[0]}`;
    this.#create = library.func(
      'int nvrtcCreateProgram(_Out_ uint64_t*, str, str, int, void*, void*)',
    );
    this.#compile = library.func('int nvrtcCompileProgram(uint64_t, int, const char**)');
    this.#destroy = library.func('int nvrtcDestroyProgram(_Inout_ uint64_t*)');
    this.#logSize = library.func('int nvrtcGetProgramLogSize(uint64_t, _Out_ uint64_t*)');
    this.#log = library.func('int nvrtcGetProgramLog(uint64_t, uint8_t*)');
    this.#cubinSize = library.func('int nvrtcGetCUBINSize(uint64_t, _Out_ uint64_t*)');
    this.#cubin = library.func('int nvrtcGetCUBIN(uint64_t, uint8_t*)');
  }

  /** Throws with the compiler's own words if the source does not compile. */
  compile(source: string, name: string, flags: readonly string[]): Uint8Array {
    const program: [number | bigint] = [0];
    this.#check(this.#create(program, source, `${name}.cu`, 0, null, null), name, 'create');
    try {
      const code = this.#compile(program[0], flags.length, flags);
      if (code !== 0)
        throw new Error(`${name} does not compile (${code}):\n${this.#messages(program[0])}`);
      const size: [number | bigint] = [0];
      this.#check(this.#cubinSize(program[0], size), name, 'size');
      const cubin = new Uint8Array(Number(size[0]));
      this.#check(this.#cubin(program[0], cubin), name, 'read');
      return cubin;
    } finally {
      this.#destroy(program);
    }
  }

  #messages(program: number | bigint): string {
    const size: [number | bigint] = [0];
    if (this.#logSize(program, size) !== 0) return 'no log';
    const bytes = new Uint8Array(Number(size[0]));
    if (this.#log(program, bytes) !== 0) return 'no log';
    return Buffer.from(bytes).toString('utf8');
  }

  #check(code: number, name: string, what: string): void {
    if (code !== 0) throw new Error(`NVRTC failed with ${code} to ${what} ${name}`);
  }
}
