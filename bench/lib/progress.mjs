/** A progress bar of one line on standard error; silent when that is no terminal. */
const WIDTH = 30;
const REDRAW_MS = 100;

export class ProgressBar {
  constructor(label) {
    this.label = label;
    this.enabled = process.stderr.isTTY === true;
    this.started = Date.now();
    this.drawn = 0;
  }

  update(done, total) {
    const now = Date.now();
    if (!this.enabled || (now - this.drawn < REDRAW_MS && done < total)) return;
    this.drawn = now;
    const share = total > 0 ? done / total : 1;
    const filled = Math.round(share * WIDTH);
    const bar = "█".repeat(filled) + "░".repeat(WIDTH - filled);
    const left = share > 0 ? ((now - this.started) / 1000) * (1 / share - 1) : 0;
    const percent = String(Math.floor(share * 100)).padStart(3);
    process.stderr.write(`\r${this.label} ${bar} ${percent}% ${Math.ceil(left)} s left   `);
  }

  stop() {
    if (this.enabled) process.stderr.write("\n");
  }
}
