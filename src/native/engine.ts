/**
 * The engine as async iterables: one stream of events a request, ended by exactly one `done`.
 * Credits are granted as events are taken, so a reader that stops reading stops being scheduled.
 */
import { EngineFault, UnavailableError } from "../errors.js";
import type {
  NativeActivationEvent,
  NativeBinding,
  NativeDoneEvent,
  NativeEngine,
  NativeEngineOptions,
  NativeEvent,
  NativePromptLogprobsEvent,
  NativeReadyEvent,
  NativeRequest,
  NativeStats,
  NativeTokenEvent,
  NativeVector,
} from "./binding.js";

export type RequestEvent =
  | NativeTokenEvent
  | NativePromptLogprobsEvent
  | NativeActivationEvent
  | NativeDoneEvent;

export type SubmitOptions = Omit<NativeRequest, "id">;

export interface LoadProgress {
  doneBytes: number;
  totalBytes: number;
}

/** Events of one request, in order. */
class EventQueue implements AsyncIterator<RequestEvent, undefined> {
  private events: RequestEvent[] = [];
  private waiting: ((result: IteratorResult<RequestEvent, undefined>) => void) | null = null;
  private finished = false;

  constructor(private readonly onTaken: (event: RequestEvent) => void) {}

  push(event: RequestEvent): void {
    const waiting = this.waiting;
    if (waiting) {
      this.waiting = null;
      waiting(this.take(event));
    } else {
      this.events.push(event);
    }
  }

  next(): Promise<IteratorResult<RequestEvent, undefined>> {
    const event = this.events.shift();
    if (event) return Promise.resolve(this.take(event));
    if (this.finished) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => {
      this.waiting = resolve;
    });
  }

  private take(event: RequestEvent): IteratorResult<RequestEvent, undefined> {
    if (event.type === "done") this.finished = true;
    else this.onTaken(event);
    return { done: false, value: event };
  }
}

/** A submitted request. Iterate it to the end; `cancel` makes the end come soon. */
export class EngineStream implements AsyncIterable<RequestEvent> {
  constructor(
    readonly id: number,
    private readonly queue: EventQueue,
    private readonly engine: NativeEngine,
  ) {}

  /** Ends one completion, or all. The `done` event still comes. */
  cancel(completion = -1): void {
    this.engine.cancel(this.id, completion);
  }

  [Symbol.asyncIterator](): AsyncIterator<RequestEvent, undefined> {
    return this.queue;
  }
}

export class Engine {
  private readonly native: NativeEngine;
  private readonly queues = new Map<number, EventQueue>();
  private nextId = 1;
  private fault: EngineFault | null = null;
  private closed = false;
  private resolveReady: (event: NativeReadyEvent) => void = () => {};
  private rejectReady: (error: Error) => void = () => {};

  /** Settles when loading has ended. */
  readonly ready: Promise<NativeReadyEvent>;

  /** `onFault` is called once when the engine is gone after it was ready. */
  constructor(
    binding: NativeBinding,
    options: NativeEngineOptions,
    private readonly onProgress: (progress: LoadProgress) => void = () => {},
    private readonly onFault: (fault: EngineFault) => void = () => {},
  ) {
    this.ready = new Promise((resolve, reject) => {
      this.resolveReady = resolve;
      this.rejectReady = reject;
    });
    this.ready.catch(() => {});
    this.native = binding.openEngine(options, (events) => {
      for (const event of events) this.dispatch(event);
    });
  }

  get healthy(): boolean {
    return this.fault === null && !this.closed;
  }

  submit(options: SubmitOptions): EngineStream {
    if (this.fault) throw this.fault;
    if (this.closed) throw new UnavailableError("the server is shutting down", "SHUTTING_DOWN");
    const id = this.nextId++;
    const queue = new EventQueue(() => this.native.grant(id, 1));
    this.queues.set(id, queue);
    this.native.submit({ id, ...options });
    return new EngineStream(id, queue, this.native);
  }

  putVector(vector: NativeVector): void {
    this.native.putVector(vector);
  }

  dropVector(handle: number): void {
    this.native.dropVector(handle);
  }

  stats(): NativeStats {
    return this.native.stats();
  }

  /** Ends every request and joins the engine's thread. Idempotent. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.native.close();
  }

  private dispatch(event: NativeEvent): void {
    switch (event.type) {
      case "load_progress":
        return this.onProgress(event);
      case "ready":
        return this.resolveReady(event);
      case "fatal": {
        const fault = new EngineFault(event.status.message);
        this.fault = fault;
        this.rejectReady(fault);
        return this.onFault(fault);
      }
      default: {
        const queue = this.queues.get(event.id);
        if (event.type === "done") this.queues.delete(event.id);
        return queue?.push(event);
      }
    }
  }
}
