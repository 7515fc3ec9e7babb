/**
 * An addon without a model, for what the real one does too fast or not at all: loading on command,
 * requests that wait, a fault. It keeps the promises of src/native/binding.ts: credits, cancellation,
 * exactly one terminal event.
 */
import type {
  NativeBinding,
  NativeDoneEvent,
  NativeEngine,
  NativeEvent,
  NativeFinishReason,
  NativeRequest,
  NativeStats,
} from "../../src/native/binding.js";
import { NATIVE_API_VERSION } from "../../src/native/binding.js";

const CANCELLED = 1;
const INTERNAL = 13;

interface Running {
  request: NativeRequest;
  credits: number;
  sent: number;
}

export class FakeBinding implements NativeBinding, NativeEngine {
  readonly apiVersion = NATIVE_API_VERSION;
  /** Requests that were submitted and have not ended. */
  readonly running = new Map<number, Running>();
  readonly submitted: NativeRequest[] = [];
  /** False: requests wait in the queue. */
  started = true;
  lastStepAgeSeconds = 0;
  closed = false;
  private emit: (events: NativeEvent[]) => void = () => {};

  /** `loadAtOnce` false: call `finishLoading`. */
  constructor(private readonly loadAtOnce = true) {}

  openEngine(_options: unknown, onEvents: (events: NativeEvent[]) => void): NativeEngine {
    this.emit = onEvents;
    if (this.loadAtOnce) setImmediate(() => this.finishLoading());
    return this;
  }

  finishLoading(): void {
    this.emit([
      {
        type: "ready",
        device: { kind: "cpu", name: "fake", isa: "none", threads: 1 },
        deviceFallback: "",
        weightDtype: "bf16",
        kvDtype: "bf16",
        weightBytes: 0,
        kvBytes: 0,
        kvBlocks: 64,
        kvBlockTokens: 16,
      },
    ]);
  }

  /** The engine is gone: every request ends, then the fatal event. */
  fail(message: string): void {
    for (const { request } of this.running.values()) this.end(request, INTERNAL, message);
    this.emit([{ type: "fatal", status: { code: INTERNAL, message } }]);
  }

  /** Lets requests that wait begin. */
  start(): void {
    this.started = true;
    for (const each of this.running.values()) this.advance(each);
  }

  submit(request: NativeRequest): void {
    this.submitted.push(request);
    const running = { request, credits: request.credits, sent: 0 };
    this.running.set(request.id, running);
    if (this.started) this.advance(running);
  }

  cancel(id: number, completion: number): void {
    const running = this.running.get(id);
    if (running && completion < 0) setImmediate(() => this.end(running.request, CANCELLED, ""));
  }

  grant(id: number, credits: number): void {
    const running = this.running.get(id);
    if (!running) return;
    running.credits += credits;
    if (this.started) this.advance(running);
  }

  putVector(): void {}
  dropVector(): void {}
  putAdapter(): void {}
  dropAdapter(): void {}

  stats(): NativeStats {
    const waiting = this.started ? [] : [...this.running.values()];
    return {
      waitingRequests: waiting.length,
      runningRequests: this.started ? this.running.size : 0,
      waitingPromptTokens: waiting.reduce(
        (sum, { request }) => sum + request.promptTokenIds.length,
        0,
      ),
      kvBlocks: 64,
      kvBlocksUsed: this.running.size,
      kvBlocksCached: 0,
      steps: 0,
      lastStepAgeSeconds: this.lastStepAgeSeconds,
      preemptions: 0,
      promptTokens: 0,
      cachedPromptTokens: 0,
      generatedTokens: 0,
      nonfiniteRows: 0,
      captureBytes: 0,
      residentVectors: 0,
      residentVectorBytes: 0,
      residentAdapters: 0,
      residentAdapterBytes: 0,
      gateEvaluations: 0,
      gateFired: 0,
      recentBatchTokens: [],
    };
  }

  close(): void {
    this.closed = true;
  }

  /** One token a turn of the event loop, as credits allow. */
  private advance(running: Running): void {
    setImmediate(() => {
      const { request } = running;
      if (!this.running.has(request.id) || running.credits === 0) return;
      running.credits -= 1;
      running.sent += 1;
      const finish = running.sent === request.maxNewTokens ? "length" : "none";
      this.emit([
        {
          type: "token",
          id: request.id,
          completion: 0,
          token: { tokenId: 40 + (running.sent % 26), logprob: 0, top: [] },
          hasLogprob: false,
          finish,
          klToUnsteered: null,
        },
      ]);
      if (finish === "length") this.end(request, 0, "", [finish]);
      else this.advance(running);
    });
  }

  private end(
    request: NativeRequest,
    code: number,
    message: string,
    finishReasons: NativeFinishReason[] = [],
  ): void {
    if (!this.running.delete(request.id)) return;
    const done: NativeDoneEvent = {
      type: "done",
      id: request.id,
      status: { code, message },
      finishReasons,
      promptTokens: request.promptTokenIds.length,
      cachedPromptTokens: 0,
      completionTokens: 0,
      timings: { queueNs: 1, prefillNs: 1, decodeNs: 1, timeToFirstTokenNs: 1 },
      applied: request.steering.map(() => ({
        promptTokens: 0,
        generatedTokens: 0,
        steeredRows: 0,
        meanDeltaRatio: 0,
        gateEvaluations: 0,
        gateFired: 0,
        firstPositions: Int32Array.of(0),
      })),
    };
    this.emit([done]);
  }
}
