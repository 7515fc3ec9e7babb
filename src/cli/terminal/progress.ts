/** A progress bar on standard error; nothing where that is no terminal. */
import { Presets, SingleBar } from "cli-progress";

export interface Progress {
  /** `total`: where it was not known at the start. */
  update(done: number, note?: string, total?: number): void;
  stop(): void;
}

export function progressBar(label: string, total: number, unit: string): Progress {
  if (!process.stderr.isTTY) return { update() {}, stop() {} };
  const bar = new SingleBar(
    {
      format: `${label} {bar} {percentage}% | {value}/{total} ${unit}{note} | {duration_formatted}, {eta_formatted} left`,
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      barsize: 30,
    },
    Presets.shades_classic,
  );
  bar.start(total, 0, { note: "" });
  return {
    update(done, note = "", total = bar.getTotal()) {
      if (total !== bar.getTotal()) bar.setTotal(total);
      bar.update(done, { note: note && ` | ${note}` });
    },
    stop: () => bar.stop(),
  };
}

/** 1536 as "1.5 KiB". */
export function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes === 0 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  const value = bytes / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${units[power]}`;
}
