/** Memory that several calls share: what does not fit now is refused, and may be tried again. */
import { ResourceExhaustedError } from "../errors.js";

const RETRY_DELAY_MS = 1000;

export interface Reservation extends Disposable {
  /** Throws ResourceExhaustedError when others hold too much. */
  grow(bytes: number): void;
}

export class ByteBudget {
  private reserved = 0;

  /** `what` and `reason`: for the error, "activations", "ACTIVATION_BYTES". */
  constructor(
    private readonly totalBytes: number,
    private readonly what: string,
    private readonly reason: string,
  ) {}

  reserve(): Reservation {
    let held = 0;
    return {
      grow: (bytes) => {
        if (this.reserved + bytes > this.totalBytes) {
          throw new ResourceExhaustedError(
            `${bytes} bytes of ${this.what} do not fit beside the ${this.reserved} in use; all together have ${this.totalBytes}`,
            this.reason,
            RETRY_DELAY_MS,
          );
        }
        held += bytes;
        this.reserved += bytes;
      },
      [Symbol.dispose]: () => {
        this.reserved -= held;
        held = 0;
      },
    };
  }
}
