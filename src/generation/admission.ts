/**
 * The bounded queue. A request is refused before any tokenising work when too many wait, and before
 * it is submitted when too many prompt tokens wait.
 */
import {
  DeadlineExceededError,
  ResourceExhaustedError,
  type ServiceError,
  UnavailableError,
} from "../errors.js";
import { Promises } from "./promises.js";
import { QueuePace } from "./queue-pace.js";

export type RejectionReason = "queue" | "tokens" | "kv" | "draining" | "quota" | "deadline";

export interface QueueLimits {
  maxWaitingRequests: number;
  maxWaitingPromptTokens: number;
}

/** What waits inside the engine. */
export interface QueueState {
  waitingRequests: number;
  waitingPromptTokens: number;
}

/** Held from admission until the request has ended. */
export interface Ticket {
  /** The prompt is known now. Throws when too many tokens wait. */
  countTokens(promptTokens: number): void;
  /** The engine has it: it no longer counts as pending here. */
  submitted(): void;
  /** The request has ended. Idempotent. */
  release(): void;
}

export class Admission {
  private state: "loading" | "open" | "draining" = "loading";
  private pendingRequests = 0;
  private pendingTokens = 0;
  private active = 0;
  private onIdle: (() => void) | null = null;
  private readonly pace = new QueuePace();
  private readonly promises = new Promises();

  constructor(
    private readonly limits: QueueLimits,
    private readonly engineQueue: () => QueueState,
    private readonly onRejection: (reason: RejectionReason) => void,
  ) {}

  /** Admitted requests that have not ended. */
  get activeRequests(): number {
    return this.active;
  }

  open(): void {
    if (this.state === "loading") this.state = "open";
  }

  /** Refuses new requests; resolves when every admitted one has ended. */
  drain(): Promise<void> {
    this.state = "draining";
    if (this.active === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onIdle = resolve;
    });
  }

  /** Throws UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED. `deadlineMs`: epoch, or null. */
  enter(deadlineMs: number | null): Ticket {
    this.requireOpen();
    const refusal = this.refusal(deadlineMs);
    if (refusal) throw refusal;
    return this.issueTicket();
  }

  /** What `enter` would throw now for the sake of the queue, counted as a refusal; null: nothing. */
  refusal(deadlineMs: number | null): ServiceError | null {
    const waiting = this.engineQueue().waitingRequests + this.pendingRequests;
    if (deadlineMs !== null) {
      const late = this.lateness(deadlineMs - Date.now(), waiting);
      if (late) return late;
    }
    if (waiting < this.limits.maxWaitingRequests) return null;
    this.onRejection("queue");
    return new ResourceExhaustedError(
      `${waiting} requests wait; the limit is ${this.limits.maxWaitingRequests}`,
      "QUEUE_FULL",
      this.promise(waiting),
    );
  }

  /** For calls that need the service but not the queue. */
  requireOpen(): void {
    if (this.state === "open") return;
    if (this.state === "draining") this.onRejection("draining");
    throw this.state === "loading"
      ? new UnavailableError("the model is loading", "LOADING")
      : new UnavailableError("the server is shutting down", "DRAINING");
  }

  /** When a refused client is told to come back, milliseconds from now. */
  private promise(waiting: number): number {
    return this.promises.give(this.pace.outlook(waiting), performance.now(), Math.random());
  }

  /** The queue alone, without the request's own run: a refusal must not be a guess that is too high. */
  private lateness(leftMs: number, waiting: number): DeadlineExceededError | null {
    const waitMs = this.pace.outlook(waiting)?.waitMs ?? 0;
    if (leftMs > 0 && waitMs <= leftMs) return null;
    this.onRejection("deadline");
    return new DeadlineExceededError(
      leftMs <= 0
        ? "the deadline passed before the request was admitted"
        : `the deadline is in ${Math.round(leftMs)} ms, and the ${waiting} requests that wait need ` +
            `${Math.round(waitMs)} ms`,
    );
  }

  private issueTicket(): Ticket {
    this.pendingRequests += 1;
    this.active += 1;
    let pendingTokens = 0;
    let pending = true;
    let released = false;
    const submitted = () => {
      if (!pending) return;
      pending = false;
      this.pendingRequests -= 1;
      this.pendingTokens -= pendingTokens;
    };
    return {
      countTokens: (promptTokens) => {
        this.checkTokens(promptTokens);
        pendingTokens += promptTokens;
        this.pendingTokens += promptTokens;
      },
      submitted,
      release: () => {
        if (released) return;
        released = true;
        submitted();
        this.active -= 1;
        this.pace.ended(this.engineQueue().waitingRequests, performance.now());
        if (this.active === 0) this.onIdle?.();
      },
    };
  }

  /** An empty queue takes any request that fits the context. */
  private checkTokens(promptTokens: number): void {
    const waiting = this.engineQueue().waitingPromptTokens + this.pendingTokens;
    if (waiting === 0 || waiting + promptTokens <= this.limits.maxWaitingPromptTokens) return;
    this.onRejection("tokens");
    throw new ResourceExhaustedError(
      `${waiting} prompt tokens wait; with ${promptTokens} more the limit of ` +
        `${this.limits.maxWaitingPromptTokens} is passed`,
      "PROMPT_TOKENS_WAITING",
      this.promise(this.engineQueue().waitingRequests),
    );
  }
}
