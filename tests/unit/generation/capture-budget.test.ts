/** Room for captured rows that wait for clients. */
import { expect, it } from "vitest";
import { InvalidArgumentError, ResourceExhaustedError } from "../../../src/errors.js";
import { CaptureBudget } from "../../../src/generation/capture-budget.js";

const LIMITS = { maxCaptureStreamBytes: 100, maxCaptureBufferBytes: 250 };

it("gives what a capture needs, up to the limit of one client", () => {
  const budget = new CaptureBudget(LIMITS);
  expect(budget.reserve(10, 30, "capture").bytes).toBe(30);
  expect(budget.reserve(10, 5000, "capture").bytes).toBe(100);
  expect(budget.reserve(10, 0, "capture").bytes).toBe(10);
  expect(budget.reservedBytes).toBe(140);
});

it("gives less when the room of all is short, but never less than a token's rows", () => {
  const budget = new CaptureBudget(LIMITS);
  budget.reserve(100, 100, "capture");
  budget.reserve(100, 100, "capture");
  expect(budget.reserve(20, 100, "capture").bytes).toBe(50);
  expect(() => budget.reserve(20, 100, "capture")).toThrow(ResourceExhaustedError);
});

it("has the room again after a release, which counts once", () => {
  const budget = new CaptureBudget(LIMITS);
  const windows = [100, 100, 50].map((bytes) => budget.reserve(bytes, bytes, "capture"));
  windows[0]?.release();
  windows[0]?.release();
  expect(budget.reservedBytes).toBe(150);
  expect(budget.reserve(100, 100, "capture").bytes).toBe(100);
});

it("blames a token that never fits on the request, with both numbers", () => {
  const budget = new CaptureBudget(LIMITS);
  expect(() => budget.reserve(101, 101, "capture.sites")).toThrow(InvalidArgumentError);
  expect(() => budget.reserve(101, 101, "capture.sites")).toThrow(/capture\.sites.*101.*100/);
  expect(budget.reservedBytes).toBe(0);
});
