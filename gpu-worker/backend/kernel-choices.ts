/**
 * The kernels that a backend's ops have taken for a model's shapes, noted while it warms up so that
 * a start can tell them: a shape that has no tensor core kernel is slow, and says so.
 */

export interface KernelChoice {
  readonly op: string;
  readonly kernel: string;
  readonly unit: 'tensor cores' | 'plain';
  /** Shapes that took it, where an op has several. */
  readonly shapes: readonly string[];
}

/** Shapes of an op that a line names. */
const shapesMax = 4;

interface Noted extends KernelChoice {
  readonly shapes: string[];
}

export class KernelChoices {
  readonly #noted = new Map<string, Noted>();
  #isOpen = true;

  /** Notes a kernel that an op is about to launch. */
  note(op: string, choice: { kernel: string; unit: KernelChoice['unit']; shape?: string }): void {
    if (!this.#isOpen) return;
    const { kernel, unit, shape } = choice;
    const key = `${op}: ${kernel}`;
    const noted = this.#noted.get(key) ?? { op, kernel, unit, shapes: [] };
    this.#noted.set(key, noted);
    if (shape !== undefined && !noted.shapes.includes(shape)) noted.shapes.push(shape);
  }

  /** Ends the notes, so that steps of requests spend nothing on them. */
  close(): void {
    this.#isOpen = false;
  }

  list(): readonly KernelChoice[] {
    return [...this.#noted.values()];
  }
}

/** The choices as aligned lines, one for each op and unit. */
export function formatKernelChoices(choices: readonly KernelChoice[]): string {
  const lines = new Map<string, { op: string; unit: string; kernels: string[] }>();
  for (const choice of choices) {
    const { op, unit } = choice;
    const line = lines.get(`${op} ${unit}`) ?? { op, unit, kernels: [] };
    lines.set(`${op} ${unit}`, line);
    line.kernels.push(kernelText(choice));
  }
  return [...lines.values()]
    .map(({ op, unit, kernels }) => `${op.padEnd(22)}${unit.padEnd(14)}${kernels.join(', ')}`)
    .join('\n');
}

/** Shapes matter where a kernel is the slow one. */
function kernelText({ kernel, unit, shapes }: KernelChoice): string {
  if (unit === 'tensor cores' || shapes.length === 0) return kernel;
  const others = shapes.length > shapesMax ? [`${shapes.length - shapesMax} more`] : [];
  return `${kernel} (${[...shapes.slice(0, shapesMax), ...others].join('; ')})`;
}
