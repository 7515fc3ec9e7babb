/**
 * The engine as async iterables: one stream of events a request, ended by exactly one `done`.
 * Credits are granted as events are taken, so a reader that stops reading stops being scheduled.
 */
import { Code, EngineFault, UnavailableError } from "../errors.js";
import type {
  NativeActivationEvent,
  NativeAdapter,
  NativeBinding,
  NativeDoneEvent,
  NativeEngine,
  NativeEngineOptions,
  NativeEvent,
  NativeProbeEvent,
  NativePromptLogprobsEvent,
  NativeReadyEvent,
  NativeRequest,
  NativeStats,
  NativeStatus,
  NativeTokenEvent,
  NativeVector,
} from "./binding.js";
import { LENS_ENTRY_BYTES } from "./binding.js";

export type RequestEvent =
  | NativeTokenEvent
  | NativePromptLogprobsEvent
  | NativeProbeEvent
  | NativeActivationEvent
  | NativeDoneEvent;

export type SubmitOptions = Omit<NativeRequest, "id">;

export interface LoadProgress {
  doneBytes: number;
  totalBytes: number;
}

/** Captured bytes that a reader takes at once; more wait for its next turn. */
const MAX_BATCH_BYTES = 1024 ** 2;

/** What an event counts against the credit of captured bytes. */
export function eventBytes(event: RequestEvent): number {
  if (event.type !== "activations") return 0;
  const entries = event.lens.reduce((sum, row) => sum + row.length, 0);
  return event.data.byteLength + entries * LENS_ENTRY_BYTES;
}

/** Events of one request, in order. */
class EventQueue {
  private events: RequestEvent[] = [];
  private wake: (() => void) | null = null;

  push(event: RequestEvent): void {
    this.events.push(event);
    this.wake?.();
  }

  /** What has come, at least one event; an event that passes MAX_BATCH_BYTES is the last one. */
  async take(): Promise<RequestEvent[]> {
    while (this.events.length === 0) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    this.wake = null;
    let bytes = 0;
    const last = this.events.findIndex((event) => {
      bytes += eventBytes(event);
      return bytes >= MAX_BATCH_BYTES;
    });
    if (last >= 0) return this.events.splice(0, last + 1);
    const taken = this.events;
    this.events = [];
    return taken;
  }
}

/**
 * A submitted request. Iterating yields batches of events. The last batch ends with `done`. Asking
 * for the next batch grants credits for the one before.
 */
export class EngineStream implements AsyncIterable<RequestEvent[]> {
  constructor(
    readonly id: number,
    private readonly queue: EventQueue,
    private readonly engine: NativeEngine,
  ) {}

  /** Ends one completion, or all. The `done` event still comes. */
  cancel(completion = -1): void {
    this.engine.cancel(this.id, completion);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<RequestEvent[], void, undefined> {
    for (;;) {
      const batch = await this.queue.take();
      yield batch;
      if (batch.at(-1)?.type === "done") return;
      const credits = batch.filter(takesCredit).length;
      const bytes = batch.reduce((sum, event) => sum + eventBytes(event), 0);
      if (credits > 0) this.engine.grant(this.id, credits, bytes);
    }
  }
}

function takesCredit({ type }: RequestEvent): boolean {
  return type === "token" || type === "activations";
}

/** Batch sizes kept for the metrics between two scrapes. */
const MAX_RECENT_BATCHES = 65_536;

export class Engine {
  private readonly native: NativeEngine;
  private readonly queues = new Map<number, EventQueue>();
  private nextId = 1;
  private fault: EngineFault | null = null;
  private ended = false;
  private closed = false;
  private readonly batchTokens: number[] = [];
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
    return this.fault === null && !this.ended;
  }

  submit(options: SubmitOptions): EngineStream {
    if (this.fault) throw this.fault;
    if (this.ended) throw new UnavailableError("the server is shutting down", "SHUTTING_DOWN");
    const id = this.nextId++;
    const queue = new EventQueue();
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

  /** Throws an Error with a numeric `code` (google.rpc.Code) when it cannot be held. */
  putAdapter(adapter: NativeAdapter): void {
    this.native.putAdapter(adapter);
  }

  dropAdapter(handle: number): void {
    this.native.dropAdapter(handle);
  }

  stats(): NativeStats {
    const stats = this.native.stats();
    this.batchTokens.push(...stats.recentBatchTokens);
    if (this.batchTokens.length > MAX_RECENT_BATCHES) this.batchTokens.length = MAX_RECENT_BATCHES;
    return stats;
  }

  /** Rows of each step since the last call. */
  takeBatchTokens(): number[] {
    this.stats();
    return this.batchTokens.splice(0);
  }

  /** No request goes on, and none is taken. Idempotent. */
  endRequests(): void {
    if (this.ended) return;
    this.ended = true;
    const status = { code: Code.UNAVAILABLE, message: "the server is shutting down" };
    for (const id of this.queues.keys()) this.native.cancel(id, -1);
    this.endAll(status);
    this.rejectReady(new UnavailableError(status.message, "SHUTTING_DOWN"));
  }

  /** Ends every request and waits for the engine's thread, which ends its step. Idempotent. */
  close(): void {
    if (this.closed) return;
    this.endRequests();
    this.closed = true;
    this.native.close();
  }

  /** A closed or failed addon may tell nothing more, and no one may wait for it for ever. */
  private endAll(status: NativeStatus): void {
    for (const [id, queue] of this.queues) queue.push(terminalEvent(id, status));
    this.queues.clear();
  }

  private dispatch(event: NativeEvent): void {
    switch (event.type) {
      case "load_progress":
        this.onProgress(event);
        break;
      case "ready":
        this.resolveReady(event);
        break;
      case "fatal": {
        const fault = new EngineFault(event.status.message);
        this.fault = fault;
        this.endAll(event.status);
        this.rejectReady(fault);
        this.onFault(fault);
        break;
      }
      default: {
        const queue = this.queues.get(event.id);
        if (event.type === "done") this.queues.delete(event.id);
        queue?.push(event);
      }
    }
  }
}

function terminalEvent(id: number, status: NativeStatus): NativeDoneEvent {
  return {
    type: "done",
    id,
    status,
    finishReasons: [],
    promptTokens: 0,
    cachedPromptTokens: 0,
    completionTokens: 0,
    timings: { queueNs: 0, prefillNs: 0, decodeNs: 0, timeToFirstTokenNs: 0 },
    applied: [],
  };
}
