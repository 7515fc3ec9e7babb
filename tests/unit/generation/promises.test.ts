/** When refused clients are told to come back, on a clock that the tests turn. */
import { describe, expect, it } from "vitest";
import { Promises } from "../../../src/generation/promises.js";

/** 20 requests leave the queue in a second; 10 wait. */
const OUTLOOK = { waitMs: 500, intervalMs: 50 };
/** No jitter. */
const MIDDLE = 0.5;

describe("the delay", () => {
  it("is a second where the pace is not known, for each alike", () => {
    const promises = new Promises();
    for (let client = 0; client < 10; client++) {
      expect(promises.give(null, client, MIDDLE)).toBe(1000);
    }
  });

  it("of the first is that of the queue, of each other one turn later", () => {
    const promises = new Promises();
    const delays = Array.from({ length: 5 }, () => promises.give(OUTLOOK, 0, MIDDLE));
    expect(delays).toEqual([500, 550, 600, 650, 700]);
  });

  it("shrinks as the turns that were promised go by", () => {
    const promises = new Promises();
    for (let client = 0; client < 5; client++) promises.give(OUTLOOK, 0, MIDDLE);
    expect(promises.give(OUTLOOK, 150, MIDDLE)).toBe(600);
    expect(promises.give(OUTLOOK, 1000, MIDDLE)).toBe(500);
  });

  it("is never below 100 ms but for the jitter", () => {
    const outlook = { waitMs: 1, intervalMs: 1 };
    expect(new Promises().give(outlook, 0, MIDDLE)).toBe(100);
    expect(new Promises().give(outlook, 0, 0)).toBe(75);
  });

  it("is never above 30 s, however many were promised a turn", () => {
    const promises = new Promises();
    const delays = Array.from({ length: 2000 }, () => promises.give(OUTLOOK, 0, 0.999_999));
    expect(Math.max(...delays)).toBe(30_000);
    expect(promises.give(OUTLOOK, 0, 0)).toBe(18_000);
    expect(new Promises().give({ waitMs: 90_000, intervalMs: 9000 }, 0, MIDDLE)).toBe(24_000);
  });

  it("is whole, and spread by a quarter to either side", () => {
    const delays = [0, 0.123, 0.999_999].map((random) => new Promises().give(OUTLOOK, 0, random));
    expect(delays).toEqual([375, 406, 625]);
  });
});

describe("promises", () => {
  it("lapse when nobody was refused for 64 turns, for then those who were do not come", () => {
    const promises = new Promises();
    for (let client = 0; client < 400; client++) promises.give(OUTLOOK, 0, MIDDLE);
    expect(promises.give(OUTLOOK, 3200, MIDDLE)).toBe(17_300);
    expect(promises.give(OUTLOOK, 6401, MIDDLE)).toBe(500);
  });

  it("that are too far away do not push those of later clients out", () => {
    const promises = new Promises();
    for (let client = 0; client < 5000; client++) promises.give(OUTLOOK, 0, MIDDLE);
    expect(promises.give(OUTLOOK, 3000, MIDDLE)).toBe(21_050);
  });
});

/** Clients come at `load` times the capacity for `seconds`; refused ones come back when told. */
function crowd(load: number, seconds: number): { attempts: number; served: number } {
  const promises = new Promises();
  const { intervalMs } = OUTLOOK;
  const capacity = 10;
  let waiting = 0;
  let attempts = 0;
  let served = 0;
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const comes: number[] = [];
  for (let at = 0; at < seconds * 1000; at += intervalMs / load) comes.push(at);
  let leavesMs = intervalMs;
  while (comes.length > 0) {
    const earliest = comes.reduce((best, at, index) => (at < (comes[best] ?? 0) ? index : best), 0);
    const [now = 0] = comes.splice(earliest, 1);
    if (now >= seconds * 1000) continue;
    for (; leavesMs <= now; leavesMs += intervalMs) {
      if (waiting > 0) served += 1;
      waiting = Math.max(0, waiting - 1);
    }
    attempts += 1;
    if (waiting < capacity) waiting += 1;
    else {
      const outlook = { waitMs: waiting * intervalMs, intervalMs };
      comes.push(now + promises.give(outlook, now, random()));
    }
  }
  return { attempts, served };
}

it("hold the attempts of clients that never give up near load and capacity together", () => {
  const seconds = 30;
  const { attempts, served } = crowd(2, seconds);
  const capacity = seconds * 20;
  expect(served).toBeGreaterThan(0.95 * capacity);
  // 2 come newly for each that is served, and one comes back.
  expect(attempts).toBeLessThan(3.2 * capacity);
});
