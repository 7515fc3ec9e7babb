import { Metadata } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { ClientError, type CodeName, type LlamaSteerClient } from "../../../src/client/client.js";
import { StudyError } from "../../../src/study/plan/server.js";
import { Fleet, forEachAtOnce } from "../../../src/study/run/fleet.js";

/** All of a client that a fleet uses by itself. */
function serverAt(address: string, ready: () => Promise<void> = async () => {}): LlamaSteerClient {
  return { address, waitForReady: ready } as unknown as LlamaSteerClient;
}

function errorOf(code: CodeName, details: { reason?: string; retryDelayMs?: number } = {}) {
  return Object.assign(new ClientError(code, "said the server", new Metadata()), details);
}

function fleetOf(
  clients: LlamaSteerClient[],
  {
    prepare = async () => {},
    waitMs = 1000,
  }: { prepare?: () => Promise<void>; waitMs?: number } = {},
) {
  const said: string[] = [];
  const controller = new AbortController();
  const say = (text: string) => said.push(text);
  return {
    fleet: new Fleet(clients, { waitMs, prepare, say }, controller.signal),
    said,
    controller,
  };
}

/** A call that throws these errors in turn, and then succeeds. */
function failing(errors: unknown[]) {
  const rest = [...errors];
  const calls: string[] = [];
  const work = async (client: LlamaSteerClient) => {
    calls.push(client.address);
    const error = rest.shift();
    if (error) throw error;
    return "done";
  };
  return { work, calls };
}

test("a full queue is waited for as long as it says, without preparing the server again", async () => {
  let prepared = 0;
  const prepare = async () => void prepared++;
  const { fleet } = fleetOf([serverAt("a")], { prepare });
  const { work, calls } = failing([errorOf("RESOURCE_EXHAUSTED", { retryDelayMs: 60 })]);
  const begin = performance.now();
  expect(await fleet.call(work)).toBe("done");
  expect(performance.now() - begin).toBeGreaterThanOrEqual(50);
  expect(calls).toHaveLength(2);
  expect(prepared).toBe(0);
});

test("a server that goes away is waited for and prepared once, whatever number of calls it cost", async () => {
  let prepared = 0;
  let away = 2;
  const ready = async () => {
    if (away-- > 0) throw errorOf("UNAVAILABLE");
  };
  const { fleet, said } = fleetOf([serverAt("a", ready)], { prepare: async () => void prepared++ });
  const calls = Array.from({ length: 20 }, () =>
    fleet.call(failing([errorOf("UNAVAILABLE")]).work),
  );
  expect(await Promise.all(calls)).toEqual(Array(20).fill("done"));
  expect(prepared).toBe(1);
  expect(said).toEqual([
    "the server at a is away (said the server): waiting for it",
    "the server at a is back",
  ]);
});

test("calls of a lost server go to the others, and to it again when it is back", async () => {
  let away = true;
  const ready = async () => {
    if (away) throw errorOf("UNAVAILABLE");
  };
  const { fleet, said } = fleetOf([serverAt("a", ready), serverAt("b")], { waitMs: 10_000 });
  const seen: string[] = [];
  const work = async ({ address }: LlamaSteerClient) => {
    if (address === "a" && away) throw errorOf("UNAVAILABLE");
    seen.push(address);
  };
  await Promise.all(Array.from({ length: 8 }, () => fleet.call(work)));
  expect(new Set(seen)).toEqual(new Set(["b"]));
  away = false;
  while (!said.includes("the server at a is back")) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await Promise.all(Array.from({ length: 8 }, () => fleet.call(work)));
  expect(new Set(seen)).toEqual(new Set(["a", "b"]));
});

test("a vector that the registry lost is registered again", async () => {
  let prepared = 0;
  const { fleet } = fleetOf([serverAt("a")], { prepare: async () => void prepared++ });
  const lost = Object.assign(errorOf("NOT_FOUND", { reason: "NOT_FOUND" }), {
    resource: { type: "vector", name: "code" },
  });
  expect(await fleet.call(failing([lost]).work)).toBe("done");
  expect(prepared).toBe(1);
});

test.each(["INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED"] as const)(
  "%s is thrown at once: trying again cannot mend it",
  async (code) => {
    const { fleet } = fleetOf([serverAt("a")]);
    const { work, calls } = failing([errorOf(code, { reason: code })]);
    await expect(fleet.call(work)).rejects.toMatchObject({ code });
    expect(calls).toHaveLength(1);
  },
);

test("an error of the service itself is thrown, one of the connection is not", async () => {
  const { fleet } = fleetOf([serverAt("a")]);
  const own = errorOf("INTERNAL", { reason: "INTERNAL" });
  await expect(fleet.call(failing([own]).work)).rejects.toBe(own);
  expect(await fleet.call(failing([errorOf("INTERNAL")]).work)).toBe("done");
});

test("a server that does not come back, or comes back as another, is given up", async () => {
  const gone = serverAt("a", async () => {
    throw errorOf("UNAVAILABLE");
  });
  const { fleet } = fleetOf([gone], { waitMs: 1 });
  const call = fleet.call(failing([errorOf("UNAVAILABLE")]).work);
  await expect(call).rejects.toThrow("the server at a did not come back: said the server");
  const prepare = async () => {
    throw new StudyError("fingerprint is another");
  };
  const other = fleetOf([serverAt("a")], { prepare });
  const changed = other.fleet.call(failing([errorOf("UNAVAILABLE")]).work);
  await expect(changed).rejects.toThrow("fingerprint is another");
});

test("an interrupt ends calls that wait", async () => {
  const gone = serverAt("a", async () => {
    throw errorOf("UNAVAILABLE");
  });
  const { fleet, controller } = fleetOf([gone], { waitMs: 60_000 });
  const call = fleet.call(failing([errorOf("UNAVAILABLE")]).work);
  setTimeout(() => controller.abort(), 20);
  await expect(call).rejects.toThrow();
});

test("items are begun in order, so many at once, and the first failure stops the rest", async () => {
  const begun: number[] = [];
  let now = 0;
  let most = 0;
  await forEachAtOnce([1, 2, 3, 4, 5, 6, 7], 3, async (item) => {
    begun.push(item);
    most = Math.max(most, ++now);
    await new Promise((resolve) => setTimeout(resolve, 2));
    now--;
  });
  expect(begun).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(most).toBe(3);
  const tried: number[] = [];
  const failure = forEachAtOnce([1, 2, 3, 4, 5, 6], 2, async (item) => {
    tried.push(item);
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (item === 2) throw new Error("second");
  });
  await expect(failure).rejects.toThrow("second");
  expect(tried.length).toBeLessThan(6);
});
