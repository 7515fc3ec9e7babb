/**
 * When refused clients are told to come back: one after the other, no faster than requests leave the
 * queue. Were all of them told when what waits now has gone, they would come back together, find the
 * queue full of each other, and try again until they give up: refusing them would be all that is done.
 * A promised turn is no reservation. Whoever comes is taken while there is room.
 */

/** When the pace of the queue is not known; a client's own back-off does the rest. */
const DEFAULT_RETRY_MS = 1000;
const MIN_RETRY_MS = 100;
/** Nobody is sent away for longer, whatever has been promised: there may be another replica by then. */
const MAX_RETRY_MS = 30_000;
/** Of the delay: replicas and clocks have nothing that would set them to the same beat. */
const JITTER = 0.25;
const MAX_TURN_MS = MAX_RETRY_MS / (1 + JITTER);
/**
 * Promises lapse after a time without refusals in which so many requests could have left the queue:
 * clients that were promised their turn do not come, or find room.
 */
const QUIET_TURNS = 64;

/** The queue as a refused client finds it. */
export interface QueueOutlook {
  /** Until what waits now has left the queue, milliseconds. */
  waitMs: number;
  /** Between two requests that leave the queue, milliseconds. */
  intervalMs: number;
}

export class Promises {
  /** Of the promise that is furthest away. */
  private lastTurnMs = Number.NEGATIVE_INFINITY;
  private lastGivenMs = Number.NEGATIVE_INFINITY;

  /**
   * The delay of one more refused client, whole milliseconds. `outlook` null: the pace is not known.
   * `nowMs`: of a clock that never goes back. `random` in [0, 1).
   */
  give(outlook: QueueOutlook | null, nowMs: number, random: number): number {
    if (outlook === null) return spread(DEFAULT_RETRY_MS, random);
    const { waitMs, intervalMs } = outlook;
    const lapsed = nowMs - this.lastGivenMs > QUIET_TURNS * intervalMs;
    this.lastGivenMs = nowMs;
    const afterQueueMs = nowMs + Math.max(MIN_RETRY_MS, waitMs);
    const afterOthersMs = lapsed ? afterQueueMs : this.lastTurnMs + intervalMs;
    const turnMs = Math.max(afterQueueMs, afterOthersMs);
    this.lastTurnMs = Math.min(turnMs, nowMs + MAX_TURN_MS);
    return spread(this.lastTurnMs - nowMs, random);
  }
}

function spread(delayMs: number, random: number): number {
  return Math.round(delayMs * (1 + JITTER * (2 * random - 1)));
}
