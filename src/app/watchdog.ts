/**
 * Watches the engine's steps. A step that takes too long fails /livez and takes the server out of
 * service; when it ends after all, everything is as before.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Engine } from "../native/engine.js";
import type { Logger } from "../observability/logger.js";

/** Of the shortest limit that can be set. */
const LOOKS_PER_LIMIT = 4;
const MAX_INTERVAL_MS = 1000;
const END_POLL_MS = 20;
/** One step may take so long when the server is told to stop at once. */
const ABORT_STEP_SECONDS = 5;

export interface WatchdogOptions {
  /** One step may take so long. */
  stallSeconds: number;
  /** Called when a step has begun to hang, and when it has ended. */
  onChange: (hangs: boolean) => void;
}

export class Watchdog implements Disposable {
  private readonly timer: NodeJS.Timeout;
  private hung = false;

  constructor(
    private readonly engine: Engine,
    private readonly options: WatchdogOptions,
    private readonly logger: Logger,
  ) {
    const intervalMs = (options.stallSeconds * 1000) / LOOKS_PER_LIMIT;
    this.timer = setInterval(() => this.look(), Math.min(MAX_INTERVAL_MS, intervalMs));
    this.timer.unref();
  }

  /** Seconds that the current step has taken, when they are too many; else null. */
  get hangsSinceSeconds(): number | null {
    const age = this.engine.stats().lastStepAgeSeconds;
    return age > this.options.stallSeconds ? age : null;
  }

  private look(): void {
    const seconds = this.hangsSinceSeconds;
    if ((seconds !== null) === this.hung) return;
    this.hung = seconds !== null;
    if (seconds !== null) this.logger.error({ seconds }, "a step of the engine hangs");
    else this.logger.warn("the step of the engine that hung has ended");
    this.options.onChange(this.hung);
  }

  /**
   * Ends every request and the engine. False: its step hangs; the thread is left behind, and waits
   * for nothing but SIGKILL. `signal`: waits for a step no longer than ABORT_STEP_SECONDS.
   */
  async endEngine(signal: AbortSignal): Promise<boolean> {
    const { stallSeconds } = this.options;
    this.engine.endRequests();
    for (;;) {
      const age = this.engine.stats().lastStepAgeSeconds;
      if (age === 0) break;
      const limit = signal.aborted ? Math.min(stallSeconds, ABORT_STEP_SECONDS) : stallSeconds;
      if (age > limit) return false;
      await delay(END_POLL_MS);
    }
    this.engine.close();
    return true;
  }

  [Symbol.dispose](): void {
    clearInterval(this.timer);
  }
}
