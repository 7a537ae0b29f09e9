/**
 * Progress bars on stderr, drawn only on a terminal and only for what takes longer than a second.
 */
import { Presets, SingleBar } from 'cli-progress';

export interface Progress {
  update(done: number, total: number): void;
  stop(): void;
}

const quietMs = 1000;

export function createProgress(label: string, unit: 'bytes' | 'tokens'): Progress {
  if (!process.stderr.isTTY) return { update() {}, stop() {} };
  const startedMs = performance.now();
  // Sizes in MB, rates in GB/s: loading is a matter of seconds per gigabyte.
  const scale = unit === 'bytes' ? 1e-6 : 1;
  const name = unit === 'bytes' ? 'MB' : unit;
  const rateName = unit === 'bytes' ? 'GB/s' : `${unit}/s`;
  let bar: SingleBar | null = null;
  return {
    update(done, total) {
      const seconds = (performance.now() - startedMs) / 1000;
      if (bar === null) {
        if (seconds * 1000 < quietMs) return;
        bar = new SingleBar(
          {
            format:
              `${label} {bar} {percentage}% | {value}/{total} ${name} | ` +
              `{rate} ${rateName} | {eta_formatted} left`,
            stream: process.stderr,
            hideCursor: true,
            clearOnComplete: true,
          },
          Presets.shades_classic,
        );
        bar.start(Math.round(total * scale), 0, { rate: '' });
      }
      const rate = done / Math.max(seconds, 1e-3);
      const rateText = unit === 'bytes' ? (rate / 1e9).toFixed(2) : rate.toFixed(0);
      bar.update(Math.round(done * scale), { rate: rateText });
    },
    stop() {
      bar?.stop();
    },
  };
}

/** Says how far a load is, in words: size, rate and time left. */
export function bytesText(load: { done: number; total: number; seconds: number }): string {
  const { done, total, seconds } = load;
  const rate = done / Math.max(seconds, 1e-3);
  const left = rate === 0 ? '' : `, ${Math.ceil((total - done) / rate)} s left`;
  const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(2);
  return `${gigabytes(done)} of ${gigabytes(total)} GB, ${gigabytes(rate)} GB/s${left}`;
}
