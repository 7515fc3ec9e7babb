/** Errors as gRPC statuses. */
import { Metadata } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { decodeStatusDetails } from "../../../src/client/status-details.js";
import {
  CancelledError,
  EngineFault,
  InvalidArgumentError,
  invalid,
  NotFoundError,
  ResourceExhaustedError,
  UnavailableError,
} from "../../../src/errors.js";
import { statusOf } from "../../../src/rpc/status.js";

const details = (error: unknown) => decodeStatusDetails(statusOf(error).metadata ?? new Metadata());

describe("statusOf", () => {
  it("carries field violations", () => {
    const status = statusOf(invalid("a[0].b", "is wrong"));
    expect(status).toMatchObject({ code: 3, details: "a[0].b: is wrong", correlationId: null });
    expect(details(invalid("a[0].b", "is wrong")).violations).toEqual([
      { field: "a[0].b", description: "is wrong" },
    ]);
  });

  it("carries the resource", () => {
    expect(details(new NotFoundError("vector", "mood")).resource).toEqual({
      type: "vector",
      name: "mood",
    });
  });

  it("carries the delay, as RetryInfo and as a trailer", () => {
    const error = new ResourceExhaustedError("full", "QUEUE_FULL", 1250);
    expect(details(error)).toMatchObject({ retryDelayMs: 1250, reason: "QUEUE_FULL" });
    expect(statusOf(error).metadata.get("grpc-retry-pushback-ms")).toEqual(["1250"]);
    expect(details(new UnavailableError("x", "LOADING")).retryDelayMs).toBe(1000);
    const never = statusOf(new ResourceExhaustedError("full", "REGISTRY_FULL", null));
    expect(never.metadata.get("grpc-retry-pushback-ms")).toEqual([]);
  });

  it("hides what was not foreseen behind a correlation id", () => {
    for (const error of [
      new Error("/etc/secret at 0x1"),
      new EngineFault("bad row"),
      "text",
      null,
    ]) {
      const status = statusOf(error);
      expect(status.code).toBe(13);
      expect(status.details).toBe(`internal error; correlation id ${status.correlationId}`);
      expect(details(error).metadata["correlation_id"]).toMatch(/^[0-9a-f-]{36}$/);
    }
    expect(statusOf(new CancelledError()).correlationId).toBeNull();
  });

  it("keeps trailers small, and cuts no character in half", () => {
    const violations = Array.from({ length: 500 }, (_, index) => ({
      field: `f[${index}]`,
      description: "🦙".repeat(1000),
    }));
    const status = statusOf(new InvalidArgumentError(violations));
    expect(status.details.length).toBeLessThanOrEqual(1024);
    expect(() => encodeURI(status.details)).not.toThrow();
    const [bytes] = status.metadata.get("grpc-status-details-bin");
    expect(Buffer.from(bytes ?? "").length).toBeLessThan(16_384);
    for (const { description } of details(new InvalidArgumentError(violations)).violations) {
      expect(() => encodeURI(description)).not.toThrow();
    }
  });
});
