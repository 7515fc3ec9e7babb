/**
 * Memory for captured rows that wait for slow clients. Every capture reserves a window; the engine
 * never has more of its rows on their way than fit into it, and all windows together are bounded.
 */
import { invalid, ResourceExhaustedError } from "../errors.js";

export interface CaptureBufferLimits {
  /** Bytes of captured rows on their way to one client. */
  maxCaptureStreamBytes: number;
  /** Bytes of captured rows on their way to all clients. */
  maxCaptureBufferBytes: number;
}

/** Held while a capture runs. */
export interface CaptureWindow {
  bytes: number;
  /** Idempotent. */
  release(): void;
}

/** A guess; the client's own back-off does the rest. */
const RETRY_DELAY_MS = 1000;

export class CaptureBudget {
  private reserved = 0;

  constructor(private readonly limits: CaptureBufferLimits) {}

  get reservedBytes(): number {
    return this.reserved;
  }

  /**
   * At least the rows of one token, and no more than all `totalBytes` of the capture. Throws
   * InvalidArgumentError for `field` when one token never fits, ResourceExhaustedError when other
   * captures leave no room for one now.
   */
  reserve(tokenBytes: number, totalBytes: number, field: string): CaptureWindow {
    const { maxCaptureStreamBytes, maxCaptureBufferBytes } = this.limits;
    if (tokenBytes > maxCaptureStreamBytes) {
      throw invalid(
        field,
        `the rows of one token take ${tokenBytes} bytes; the limit is ${maxCaptureStreamBytes}`,
      );
    }
    const wanted = Math.min(Math.max(tokenBytes, totalBytes), maxCaptureStreamBytes);
    const bytes = Math.min(wanted, maxCaptureBufferBytes - this.reserved);
    if (bytes < tokenBytes) {
      throw new ResourceExhaustedError(
        `running captures have reserved ${this.reserved} of ${maxCaptureBufferBytes} bytes`,
        "CAPTURE_BUFFERS",
        RETRY_DELAY_MS,
      );
    }
    this.reserved += bytes;
    let held = true;
    return {
      bytes,
      release: () => {
        if (held) this.reserved -= bytes;
        held = false;
      },
    };
  }
}
