/** Wall time of a run, over all of its starts. */
import type { StudyTimings } from "../records.js";
import { NO_TIMINGS, readJson, runFiles, writeWhole } from "../run-folder.js";

/** What a crash loses at most, of the wall time only. */
const SAVE_INTERVAL_MS = 5000;

export class Stopwatch {
  readonly #file: string;
  readonly #total: StudyTimings;
  #phase: "generationSeconds" | "judgingSeconds" | undefined;
  #since = 0;
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();

  private constructor(file: string, total: StudyTimings) {
    this.#file = file;
    this.#total = total;
  }

  static async open(folder: string): Promise<Stopwatch> {
    const file = runFiles(folder).timings;
    const before = (await readJson<StudyTimings>(file)) ?? NO_TIMINGS;
    const watch = new Stopwatch(file, { ...before, starts: before.starts + 1 });
    await watch.#save();
    return watch;
  }

  begin(phase: "generationSeconds" | "judgingSeconds"): void {
    this.#lap();
    this.#phase = phase;
    // A timer that fails to save is no reason to end a run; `stop` says it.
    this.#timer ??= setInterval(() => void this.#save().catch(() => {}), SAVE_INTERVAL_MS);
  }

  async stop(counts: { answers: number; generatedTokens: number }): Promise<StudyTimings> {
    clearInterval(this.#timer);
    Object.assign(this.#total, counts);
    this.#lap();
    this.#phase = undefined;
    await this.#save();
    return { ...this.#total };
  }

  #lap(): void {
    const now = performance.now();
    if (this.#phase) this.#total[this.#phase] += (now - this.#since) / 1000;
    this.#since = now;
  }

  #save(): Promise<void> {
    this.#lap();
    const content = `${JSON.stringify(this.#total)}\n`;
    this.#saving = this.#saving.catch(() => {}).then(() => writeWhole(this.#file, content));
    return this.#saving;
  }
}
