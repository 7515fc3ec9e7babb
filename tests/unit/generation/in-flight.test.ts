/** Bounded concurrency. */
import { expect, it } from "vitest";
import { mapInFlight } from "../../../src/generation/in-flight.js";

const never = new AbortController().signal;

it("keeps the order of the items, and the limit", async () => {
  let running = 0;
  let most = 0;
  const results = await mapInFlight([5, 1, 4, 2, 3, 0], 3, never, async (item) => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, item));
    running -= 1;
    return item * 10;
  });
  expect(results).toEqual([50, 10, 40, 20, 30, 0]);
  expect(most).toBe(3);
});

it("aborts the others at the first failure, waits for them, starts no more", async () => {
  const started: number[] = [];
  const aborted: number[] = [];
  const call = mapInFlight([0, 1, 2, 3], 2, never, async (item, signal) => {
    started.push(item);
    if (item === 0) throw new Error("first");
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    aborted.push(item);
    throw new Error("second");
  });
  await expect(call).rejects.toThrow("first");
  expect(started).toEqual([0, 1]);
  expect(aborted).toEqual([1]);
});

it("passes the caller's signal on", async () => {
  const caller = new AbortController();
  const call = mapInFlight([0], 1, caller.signal, async (_item, signal) => {
    caller.abort();
    return signal.aborted;
  });
  expect(await call).toEqual([true]);
});

it("does nothing for no items", async () => {
  expect(await mapInFlight([], 4, never, async () => 1)).toEqual([]);
});
