/** How late the event loop runs its timers. */
import { monitorEventLoopDelay } from "node:perf_hooks";

/** The histogram samples a timer of this period; the period itself is no delay. */
const RESOLUTION_MS = 10;
const PERCENTILE = 99;

export class EventLoopLag implements Disposable {
  private readonly delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  constructor() {
    this.delays.enable();
  }

  /** 99th percentile since the last call, seconds. */
  take(): number {
    const delay = this.delays.count === 0 ? 0 : this.delays.percentile(PERCENTILE) / 1e9;
    this.delays.reset();
    return Math.max(0, delay - RESOLUTION_MS / 1e3);
  }

  [Symbol.dispose](): void {
    this.delays.disable();
  }
}
