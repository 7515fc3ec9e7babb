/**
 * How fast the queue moves: from the times between the ends of requests while others waited. What
 * ended while nothing waited says nothing of what the engine could have done.
 */
import type { QueueOutlook } from "./promises.js";

/** Requests that began together end together: the mean must span several such bursts. */
const MAX_INTERVALS = 64;
const MIN_INTERVALS = 10;

export class QueuePace {
  private lastMs: number | null = null;
  /** The newest; `next` is the place of the one that comes. */
  private readonly intervalsMs: number[] = [];
  private next = 0;
  private sumMs = 0;

  /** A request has ended and `waiting` others wait. `nowMs`: of a clock that never goes back. */
  ended(waiting: number, nowMs: number): void {
    if (this.lastMs !== null) {
      const intervalMs = nowMs - this.lastMs;
      this.sumMs += intervalMs - (this.intervalsMs[this.next] ?? 0);
      this.intervalsMs[this.next] = intervalMs;
      this.next = (this.next + 1) % MAX_INTERVALS;
    }
    this.lastMs = waiting > 0 ? nowMs : null;
  }

  /** For `waiting` requests; null: not known yet. */
  outlook(waiting: number): QueueOutlook | null {
    const { length } = this.intervalsMs;
    if (length < MIN_INTERVALS) return null;
    const intervalMs = Math.max(0, this.sumMs) / length;
    return { waitMs: waiting * intervalMs, intervalMs };
  }
}
