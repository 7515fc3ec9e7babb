/** The bounded queue. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ResourceExhaustedError } from "../../../src/errors.js";
import { Admission } from "../../../src/generation/admission.js";

const LIMITS = { maxWaitingRequests: 2, maxWaitingPromptTokens: 100 };

let queue: { waitingRequests: number; waitingPromptTokens: number };
let rejections: string[];
let admission: Admission;
beforeEach(() => {
  queue = { waitingRequests: 0, waitingPromptTokens: 0 };
  rejections = [];
  admission = new Admission(
    LIMITS,
    () => queue,
    (reason) => rejections.push(reason),
  );
  admission.open();
});

const code = (name: string) => expect.objectContaining({ reason: name });

describe("requests", () => {
  it("count while they are prepared here, and while they wait in the engine", () => {
    const first = admission.enter(null);
    admission.enter(null);
    expect(() => admission.enter(null)).toThrow(code("QUEUE_FULL"));
    first.submitted();
    admission.enter(null).submitted();
    queue.waitingRequests = 1;
    expect(() => admission.enter(null)).toThrow(code("QUEUE_FULL"));
    expect(rejections).toEqual(["queue", "queue"]);
  });

  it("make room when they end, however often they say so", () => {
    const tickets = [admission.enter(null), admission.enter(null)];
    for (const ticket of tickets) {
      ticket.release();
      ticket.release();
    }
    expect(admission.activeRequests).toBe(0);
    admission.enter(null);
    admission.enter(null);
    expect(() => admission.enter(null)).toThrow(code("QUEUE_FULL"));
  });
});

describe("prompt tokens", () => {
  it("are bounded over all that wait", () => {
    const first = admission.enter(null);
    first.countTokens(60);
    const second = admission.enter(null);
    expect(() => second.countTokens(41)).toThrow(code("PROMPT_TOKENS_WAITING"));
    second.countTokens(40);
    first.release();
    admission.enter(null).countTokens(60);
    expect(rejections).toEqual(["tokens"]);
  });

  it("of one request may pass the limit when nothing else waits", () => {
    admission.enter(null).countTokens(5000);
  });

  it("no longer count here once the engine has them", () => {
    const first = admission.enter(null);
    first.countTokens(100);
    first.submitted();
    admission.enter(null).countTokens(100);
  });
});

describe("deadlines", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Requests end every 100 ms while one waits. */
  function endRequests(count: number): void {
    queue.waitingRequests = 1;
    for (let request = 0; request < count; request++) {
      const ticket = admission.enter(null);
      ticket.submitted();
      vi.advanceTimersByTime(100);
      ticket.release();
    }
  }

  it("that the queue cannot meet are refused, and nothing else of them is done", () => {
    endRequests(20);
    expect(() => admission.enter(Date.now() + 90)).toThrow(
      "the deadline is in 90 ms, and the 1 requests that wait need 100 ms",
    );
    expect(rejections).toEqual(["deadline"]);
    admission.enter(Date.now() + 110).release();
    queue.waitingRequests = 0;
    admission.enter(Date.now() + 1).release();
  });

  it("are taken on trust as long as the pace of the queue is not known", () => {
    endRequests(5);
    admission.enter(Date.now() + 1);
  });

  it("refused requests are told when what waits has gone, one after the other", () => {
    endRequests(20);
    queue.waitingRequests = 2;
    const delays = Array.from({ length: 50 }, () => delayOf(admission.refusal(null)));
    for (const [index, delayMs] of delays.entries()) {
      const turnMs = 200 + 100 * index;
      expect(delayMs).toBeGreaterThanOrEqual(0.75 * turnMs);
      expect(delayMs).toBeLessThanOrEqual(1.25 * turnMs);
    }
  });

  it("whoever is refused for prompt tokens gets a turn of the same row", () => {
    endRequests(20);
    queue = { waitingRequests: 1, waitingPromptTokens: 99 };
    const ticket = admission.enter(null);
    for (let turnMs = 100; turnMs < 2000; turnMs += 100) {
      const delayMs = delayOf(thrownBy(() => ticket.countTokens(2)));
      expect(delayMs).toBeGreaterThanOrEqual(0.75 * turnMs);
      expect(delayMs).toBeLessThanOrEqual(1.25 * turnMs);
    }
  });
});

function thrownBy(body: () => void): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

function delayOf(refusal: unknown): number {
  return (refusal as ResourceExhaustedError).retryDelayMs ?? Number.NaN;
}

describe("asking for a refusal", () => {
  it("counts it, and takes no place where there is none", () => {
    for (let asked = 0; asked < 5; asked++) expect(admission.refusal(null)).toBeNull();
    queue.waitingRequests = 2;
    expect(admission.refusal(null)).toMatchObject({ reason: "QUEUE_FULL" });
    expect(admission.refusal(Date.now() - 1)).toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    expect(rejections).toEqual(["queue", "deadline"]);
    expect(admission.activeRequests).toBe(0);
  });
});

describe("states", () => {
  it("a passed deadline is refused before anything else is done", () => {
    expect(() => admission.enter(Date.now() - 1)).toThrow(code("DEADLINE_EXCEEDED"));
    expect(rejections).toEqual(["deadline"]);
    admission.enter(Date.now() + 60_000);
  });

  it("nothing is admitted before opening", () => {
    const closed = new Admission(
      LIMITS,
      () => queue,
      () => {},
    );
    expect(() => closed.enter(null)).toThrow(code("LOADING"));
  });

  it("draining refuses new requests and ends when the last one has ended", async () => {
    const first = admission.enter(null);
    const second = admission.enter(null);
    let drained = false;
    const drain = admission.drain().then(() => {
      drained = true;
    });
    expect(() => admission.enter(null)).toThrow(code("DRAINING"));
    first.release();
    await Promise.resolve();
    expect(drained).toBe(false);
    second.release();
    await drain;
    await admission.drain();
  });
});
