/**
 * How fast the queue moves: from the times between the ends of requests while others waited. What
 * ended while nothing waited says nothing of what the engine could have done.
 */

/** Of a new interval in the running mean: about the last 20 count. */
const WEIGHT = 0.05;
const MIN_INTERVALS = 10;

/** When the pace is not known; a client's own back-off does the rest. */
const DEFAULT_RETRY_MS = 1000;
const MIN_RETRY_MS = 100;
const MAX_RETRY_MS = 30_000;
/** Clients that were refused together come back one by one. */
const JITTER = 0.25;

export class QueuePace {
  private lastMs: number | null = null;
  private intervalMs = 0;
  private intervals = 0;

  /** A request has ended and `waiting` others wait. `nowMs`: of a clock that never goes back. */
  ended(waiting: number, nowMs: number): void {
    if (this.lastMs !== null) {
      this.intervals += 1;
      const weight = Math.max(WEIGHT, 1 / this.intervals);
      this.intervalMs += weight * (nowMs - this.lastMs - this.intervalMs);
    }
    this.lastMs = waiting > 0 ? nowMs : null;
  }

  /** Until `waiting` requests have left the queue, milliseconds; null: not known yet. */
  waitMs(waiting: number): number | null {
    return this.intervals < MIN_INTERVALS ? null : waiting * this.intervalMs;
  }

  /** When a refused client may find room, whole milliseconds. `random` in [0, 1). */
  retryMs(waiting: number, random: number): number {
    const wait = this.waitMs(waiting) ?? DEFAULT_RETRY_MS;
    const bounded = Math.min(MAX_RETRY_MS, Math.max(MIN_RETRY_MS, wait));
    return Math.round(bounded * (1 + JITTER * (2 * random - 1)));
  }
}
