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
  expect(pace.outlook(4)).toBeNull();
  pace.ended(1, 550);
  expect(pace.outlook(4)).toEqual({ waitMs: 200, intervalMs: 50 });
});

it("leaves out the time in which nothing waited", () => {
  const pace = new QueuePace();
  const now = ends(pace, 20, 0, 50);
  pace.ended(0, now + 50);
  pace.ended(1, now + 60_000);
  pace.ended(1, now + 60_050);
  expect(pace.outlook(1)?.waitMs).toBeCloseTo(50);
});

it("follows a load that changes", () => {
  const pace = new QueuePace();
  const now = ends(pace, 100, 0, 10);
  ends(pace, 64, now, 200);
  expect(pace.outlook(1)?.waitMs).toBeCloseTo(200);
});

it("says the same whenever it is asked, where requests end in bursts", () => {
  const pace = new QueuePace();
  for (let end = 0; end < 640; end++) {
    pace.ended(16, 80 * Math.floor(end / 16));
    if (end > 64) expect(pace.outlook(1)?.waitMs).toBeCloseTo(5);
  }
});
