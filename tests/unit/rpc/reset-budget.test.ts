/** How many streams a client may reset on one connection. */
import { expect, it } from "vitest";
import { ResetBudget } from "../../../src/rpc/connections.js";

/** Takes until it is spent. */
function spend(budget: ResetBudget, nowMs: number): number {
  let taken = 0;
  while (budget.take(nowMs)) taken += 1;
  return taken;
}

it("holds a burst, then comes back by the second, never above the burst", () => {
  const budget = new ResetBudget(0);
  expect(spend(budget, 0)).toBe(500);
  expect(spend(budget, 1000)).toBe(16);
  expect(spend(budget, 3000)).toBe(32);
  expect(spend(budget, 1e9)).toBe(500);
});

it("never runs out for a client that cancels now and then", () => {
  const budget = new ResetBudget(0);
  for (let second = 1; second <= 10_000; second++) {
    for (let call = 0; call < 10; call++) expect(budget.take(second * 1000)).toBe(true);
  }
});
