/** Progress of a study with the time left: a bar on a terminal, else a line now and then. */
import { type Progress, progressBar } from "../terminal/progress.js";

const LINE_INTERVAL_MS = 30_000;
/** The speed is that of so many last minutes: cells differ in how long their answers are. */
const WINDOW_MS = 5 * 60_000;

type Phase = "answers" | "verdicts";

export class StudyProgress {
  /** Answers that are there. */
  done = 0;
  #phase: Phase | undefined;
  #bar: Progress | undefined;
  #lastLine = 0;
  #marks: { time: number; done: number }[] = [];

  say(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  update(phase: Phase, done: number, total: number): void {
    if (phase !== this.#phase) {
      this.stop();
      this.#phase = phase;
      this.#marks = [];
      this.#bar = progressBar(phase === "answers" ? "answering" : "judging", total, phase);
      this.#lastLine = performance.now();
    }
    if (phase === "answers") this.done = done;
    this.#bar?.update(done);
    const now = performance.now();
    if (now - (this.#marks.at(-1)?.time ?? 0) > 1000) this.#marks.push({ time: now, done });
    while ((this.#marks[0]?.time ?? now) < now - WINDOW_MS) this.#marks.shift();
    if (process.stderr.isTTY || now - this.#lastLine < LINE_INTERVAL_MS) return;
    this.#lastLine = now;
    this.say(`${done} of ${total} ${phase}${this.#timeLeft(now, done, total)}`);
  }

  #timeLeft(now: number, done: number, total: number): string {
    const [first] = this.#marks;
    if (!first || done <= first.done) return "";
    const seconds = ((total - done) * (now - first.time)) / (done - first.done) / 1000;
    return `, ${formatDuration(seconds)} left`;
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}

/** 4000 as "1 h 7 min". */
export function formatDuration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
