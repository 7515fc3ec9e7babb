/** How fast the queue moves. */
import { expect, it } from "vitest";
import { QueuePace } from "../../../src/generation/queue-pace.js";

/** `count` ends, so far apart, with one request waiting. */
function ends(pace: QueuePace, count: number, fromMs: number, everyMs: number): number {
  for (let end = 1; end <= count; end++) pace.ended(1, fromMs + end * everyMs);
  return fromMs + count * everyMs;
}

it("says nothing before it has seen enough", () => {
  const pace = new QueuePace();
  ends(pace, 10, 0, 50);
  expect(pace.waitMs(4)).toBeNull();
  expect(pace.retryMs(4, 0.5)).toBe(1000);
  pace.ended(1, 550);
  expect(pace.waitMs(4)).toBeCloseTo(200);
  expect(pace.retryMs(4, 0.5)).toBe(200);
});

it("leaves out the time in which nothing waited", () => {
  const pace = new QueuePace();
  const now = ends(pace, 20, 0, 50);
  pace.ended(0, now + 50);
  pace.ended(1, now + 60_000);
  pace.ended(1, now + 60_050);
  expect(pace.waitMs(1)).toBeCloseTo(50);
});

it("follows a load that changes", () => {
  const pace = new QueuePace();
  const now = ends(pace, 100, 0, 10);
  ends(pace, 100, now, 200);
  expect(pace.waitMs(1)).toBeGreaterThan(190);
});

it("keeps the delay of refused clients within bounds, whole and spread", () => {
  const pace = new QueuePace();
  ends(pace, 20, 0, 0.1);
  expect(pace.retryMs(1, 0)).toBe(75);
  const slow = new QueuePace();
  ends(slow, 20, 0, 60_000);
  expect(slow.retryMs(100, 0.999)).toBe(37_485);
});
