/** What the services stand on once the model is loaded. */
import { type ServiceError, UnavailableError } from "../errors.js";
import type { GenerationContext } from "../generation/context.js";
import type { NativeReadyEvent } from "../native/binding.js";
import type { RequestLimits } from "./limits.js";

export interface Backend {
  context: GenerationContext;
  /** What the engine said when it was ready. */
  engine: NativeReadyEvent;
  limits: RequestLimits;
}

/** The server listens before the model is loaded; until then every call is UNAVAILABLE. */
export class BackendSlot {
  private backend: Backend | null = null;
  private draining = false;

  fill(backend: Backend): void {
    this.backend = backend;
  }

  drain(): void {
    this.draining = true;
  }

  /** Throws UNAVAILABLE while loading or draining. */
  requireOpen(): void {
    if (this.draining) throw new UnavailableError("the server is shutting down", "DRAINING");
    this.require().context.admission.requireOpen();
  }

  /** What the queue says of one more call; null: it may come in, or something else refuses it. */
  queueRefusal(deadlineMs: number | null): ServiceError | null {
    if (this.draining || !this.backend) return null;
    return this.backend.context.admission.refusal(deadlineMs);
  }

  require(): Backend {
    if (!this.backend) throw new UnavailableError("the model is loading", "LOADING");
    return this.backend;
  }
}
