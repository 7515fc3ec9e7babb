import { describe, expect, test } from "vitest";
import {
  AlreadyExistsError,
  CancelledError,
  DeadlineExceededError,
  InvalidArgumentError,
  NotFoundError,
  ResourceExhaustedError,
} from "../../../src/errors.js";
import { MemoryStore } from "../../../src/vectors/memory-store.js";
import type { VectorRegistry } from "../../../src/vectors/registry.js";
import { newVector, openRegistry, row } from "./fixtures.js";

const ROWS = [row(2, 1, 2, 3, 4), row(5, 5, 6, 7, 8)];

function create(registry: VectorRegistry, id: string, first = 1, labels = {}) {
  const rows = [row(2, first, 2, 3, 4), row(5, 5, 6, 7, 8)];
  return registry.create({ id, rows, labels, derivation: null });
}

describe("create", () => {
  test("shows at once, with a revision of its own", async () => {
    const { registry } = await openRegistry();
    expect(registry.revision).toBe(0n);
    const record = await create(registry, "sentiment", 1, { lab: "x" });
    expect(record.revision).toBe(1n);
    expect(registry.revision).toBe(1n);
    expect(registry.get("sentiment")).toBe(record);
    expect(record).toMatchObject({ hiddenSize: 4, layers: [2, 5], labels: { lab: "x" } });
  });

  test("of the same again is a success and writes nothing", async () => {
    const { registry } = await openRegistry();
    const first = await create(registry, "a", 1, { x: "1", y: "2" });
    expect(await create(registry, "a", 1, { y: "2", x: "1" })).toBe(first);
    expect(registry.revision).toBe(1n);
  });

  test.each<[string, number, Record<string, string>]>([
    ["other rows", 9, { x: "1" }],
    ["other labels", 1, { x: "2" }],
    ["fewer labels", 1, {}],
    ["more labels", 1, { x: "1", y: "" }],
  ])("of an id with %s is ALREADY_EXISTS", async (_, first, labels) => {
    const { registry } = await openRegistry();
    await create(registry, "a", 1, { x: "1" });
    await expect(create(registry, "a", first, labels)).rejects.toThrow(AlreadyExistsError);
    expect(registry.get("a").labels).toEqual({ x: "1" });
  });

  test("of one id by many at once has one winner", async () => {
    const { registry } = await openRegistry();
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => create(registry, "a", i % 2)),
    );
    const records = results.filter((result) => result.status === "fulfilled");
    expect(records).toHaveLength(10);
    expect(registry.revision).toBe(1n);
  });

  test.each([
    ["a bad id", { id: "../etc", rows: ROWS, labels: {} }],
    ["bad rows", { id: "a", rows: [row(99, 1, 2, 3, 4)], labels: {} }],
    ["bad labels", { id: "a", rows: ROWS, labels: { "": "" } }],
  ])("with %s is refused before anything is written", async (_, request) => {
    const { registry } = await openRegistry();
    await expect(registry.create({ ...request, derivation: null })).rejects.toThrow(
      InvalidArgumentError,
    );
    expect(registry.revision).toBe(0n);
  });

  test("past the registry's size is RESOURCE_EXHAUSTED until something is removed", async () => {
    const { registry } = await openRegistry({ limits: { maxRegistryBytes: 64 } });
    await create(registry, "a", 1);
    await create(registry, "b", 2);
    await expect(create(registry, "c", 3)).rejects.toThrow(ResourceExhaustedError);
    expect((await create(registry, "a", 1)).id).toBe("a");
    await registry.remove("b");
    expect((await create(registry, "c", 3)).revision).toBe(4n);
  });
});

describe("references", () => {
  test("resolve by id and by pinned digest", async () => {
    const { registry } = await openRegistry();
    const { digest } = await create(registry, "a");
    const hex = digest.slice("sha256:".length);
    for (const pin of [hex.slice(0, 12), hex.slice(0, 40), hex]) {
      expect(registry.get(`a@sha256:${pin}`).digest).toBe(digest);
    }
  });

  test.each(["b", "a@sha256:000000000000", "b@sha256:000000000000"])(
    "%s to what does not exist are NOT_FOUND, by the name that was asked for",
    async (reference) => {
      const { registry } = await openRegistry();
      await create(registry, "a");
      expect(() => registry.get(reference)).toThrow(NotFoundError);
      expect(() => registry.get(reference)).toThrow(reference);
    },
  );

  test.each([
    "",
    "A",
    "a@",
    "a@sha256:",
    "a@sha256:0123456789a",
    "a@sha256:0123456789AB",
    `a@sha256:${"0".repeat(65)}`,
    "a@md5:0123456789ab",
    "a@b@sha256:0123456789ab",
    "@sha256:0123456789ab",
    "a@sha256:0123456789ab\n",
  ])("%j that are malformed are INVALID_ARGUMENT with the path", async (reference) => {
    const { registry } = await openRegistry();
    expect(() => registry.get(reference, "steering[0].vector_id")).toThrow(/^steering\[0\]/);
    expect(() => registry.get(reference)).toThrow(InvalidArgumentError);
  });
});

describe("remove", () => {
  test("takes the id away and leaves it free for other content", async () => {
    const { registry } = await openRegistry();
    await create(registry, "a", 1);
    expect(await registry.remove("a")).toBe(2n);
    expect(() => registry.get("a")).toThrow(NotFoundError);
    expect((await create(registry, "a", 7)).revision).toBe(3n);
  });

  test("of a pinned id needs the content", async () => {
    const { registry } = await openRegistry();
    const { digest } = await create(registry, "a");
    await expect(registry.remove("a@sha256:000000000000")).rejects.toThrow(NotFoundError);
    expect(await registry.remove(`a@${digest}`)).toBe(2n);
  });

  test("twice at once succeeds once", async () => {
    const { registry } = await openRegistry();
    await create(registry, "a");
    const results = await Promise.allSettled([registry.remove("a"), registry.remove("a")]);
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });
});

describe("list", () => {
  async function filled() {
    const { registry } = await openRegistry();
    for (const id of ["d", "b", "a", "c", "e"]) {
      await create(registry, id, id.charCodeAt(0), { even: id < "c" ? "yes" : "no" });
    }
    return registry;
  }
  const all = { pageSize: 0, pageToken: "", filter: {} };

  test("goes by rising id, page by page", async () => {
    const registry = await filled();
    const pages: string[][] = [];
    let pageToken = "";
    do {
      const page = registry.list({ ...all, pageSize: 2, pageToken });
      pages.push(page.records.map(({ id }) => id));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(pages).toEqual([["a", "b"], ["c", "d"], ["e"]]);
  });

  test("has no page behind a page that is just full", async () => {
    const registry = await filled();
    expect(registry.list({ ...all, pageSize: 5 }).nextPageToken).toBe("");
  });

  test("goes on behind a vector that was removed between two pages", async () => {
    const registry = await filled();
    const first = registry.list({ ...all, pageSize: 2 });
    await registry.remove("b");
    const second = registry.list({ ...all, pageSize: 2, pageToken: first.nextPageToken });
    expect(second.records.map(({ id }) => id)).toEqual(["c", "d"]);
  });

  test("filters by labels", async () => {
    const registry = await filled();
    const page = registry.list({ ...all, filter: { even: "yes" } });
    expect(page.records.map(({ id }) => id)).toEqual(["a", "b"]);
    expect(registry.list({ ...all, filter: { even: "yes", more: "" } }).records).toEqual([]);
    expect(registry.list({ ...all, filter: { toString: "x" } }).records).toEqual([]);
  });

  test.each([
    [{ pageSize: 1001 }, "page_size"],
    [{ pageSize: -1 }, "page_size"],
    [{ pageToken: "!!" }, "page_token"],
    [{ pageToken: Buffer.from("../x").toString("base64url") }, "page_token"],
    [{ pageToken: `${Buffer.from("a").toString("base64url")}=` }, "page_token"],
  ])("refuses %j", async (change, field) => {
    const registry = await filled();
    expect(() => registry.list({ ...all, ...change })).toThrow(field);
  });
});

describe("acquire", () => {
  test("gives the engine the rows once, whatever names them", async () => {
    const { registry, engine } = await openRegistry();
    const { digest } = await create(registry, "a");
    await create(registry, "b");
    const pins = [
      registry.acquire("a", "x"),
      registry.acquire("b", "x"),
      registry.acquire(`a@${digest}`, "x"),
      registry.acquireInline([...ROWS].reverse(), "x"),
    ];
    expect(new Set(pins.map(({ handle }) => handle)).size).toBe(1);
    expect(engine.puts).toBe(1);
    expect(pins.map(({ vectorId }) => vectorId)).toEqual(["a", "b", "a", ""]);
    expect(pins[3]?.digest).toBe(digest);
    const native = engine.vectors.get(pins[0]?.handle ?? -1);
    expect([...(native?.layers ?? [])]).toEqual([2, 5]);
    expect([...(native?.rows ?? [])]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test("keeps the content that a request began with", async () => {
    const { registry, engine } = await openRegistry({ limits: { maxResidentBytes: 64 } });
    await create(registry, "a", 1);
    const old = registry.acquire("a", "x");
    await registry.remove("a");
    await create(registry, "a", 2);
    const fresh = registry.acquire("a", "x");
    expect(fresh.handle).not.toBe(old.handle);
    expect([...engine.vectors.keys()].sort()).toEqual([old.handle, fresh.handle]);
  });

  test("makes room by what no request holds, oldest use first", async () => {
    const { registry, engine } = await openRegistry({ limits: { maxResidentBytes: 64 } });
    for (const [i, id] of ["a", "b", "c"].entries()) await create(registry, id, i);
    const handles = ["a", "b"].map((id) => {
      const pin = registry.acquire(id, "x");
      pin.release();
      return pin.handle;
    });
    registry.acquire("a", "x").release();
    const third = registry.acquire("c", "x");
    expect([...engine.vectors.keys()].sort()).toEqual([handles[0], third.handle]);
    expect(registry.residentBytes).toBe(64);
  });

  test("past the room that running requests leave is RESOURCE_EXHAUSTED", async () => {
    const { registry, engine } = await openRegistry({ limits: { maxResidentBytes: 32 } });
    await create(registry, "a", 1);
    await create(registry, "b", 2);
    const pin = registry.acquire("a", "x");
    expect(() => registry.acquire("b", "x")).toThrow(ResourceExhaustedError);
    expect(engine.vectors.size).toBe(1);
    pin.release();
    expect(registry.acquire("b", "x").handle).not.toBe(pin.handle);
    expect(engine.vectors.size).toBe(1);
  });

  test("released twice is released once", async () => {
    const { registry } = await openRegistry({ limits: { maxResidentBytes: 32 } });
    await create(registry, "a", 1);
    await create(registry, "b", 2);
    const first = registry.acquire("a", "x");
    const second = registry.acquire("a", "x");
    first.release();
    first.release();
    expect(() => registry.acquire("b", "x")).toThrow(ResourceExhaustedError);
    second.release();
    expect(() => registry.acquire("b", "x")).not.toThrow();
  });

  test("tells a full device from a fault, and keeps nothing of either", async () => {
    const { registry, engine } = await openRegistry();
    await create(registry, "a");
    engine.refusal = Object.assign(new Error("no memory"), { code: 8 });
    expect(() => registry.acquire("a", "x")).toThrow(ResourceExhaustedError);
    engine.refusal = Object.assign(new Error("device lost"), { code: 13 });
    expect(() => registry.acquire("a", "x")).toThrow("device lost");
    engine.refusal = null;
    expect(registry.residentBytes).toBe(0);
    expect(registry.acquire("a", "x").handle).toBeGreaterThan(0);
  });

  test("tells rows of zeros, which are no direction", async () => {
    const { registry } = await openRegistry();
    expect(registry.acquireInline([row(1, 0, 0, 0, 0)], "x").zeroLayers).toEqual([1]);
    expect(registry.acquireInline([row(1, 0, 0, 0, 1)], "x").zeroLayers).toEqual([]);
  });

  test("refuses bad inline rows with their path", async () => {
    const { registry } = await openRegistry();
    expect(() => registry.acquireInline([row(1, 1)], "steering[1].inline")).toThrow(
      "steering[1].inline.rows[0].data",
    );
  });

  test("refuses what was made for another model, but lists it", async () => {
    const store = new MemoryStore();
    await store.put(newVector("wide"));
    const narrow = await openRegistry({ store, model: { hiddenSize: 2, layers: 8 } });
    expect(narrow.registry.get("wide").hiddenSize).toBe(4);
    expect(() => narrow.registry.acquire("wide", "f")).toThrow(/^f: .*hidden size is 2/);
    const shallow = await openRegistry({ store, model: { hiddenSize: 4, layers: 5 } });
    expect(() => shallow.registry.acquire("wide", "f")).toThrow(/^f: .*layer 5/);
    expect(shallow.engine.puts).toBe(0);
  });
});

describe("waiting for a revision", () => {
  test("ends at once for one that is there", async () => {
    const { registry } = await openRegistry();
    await create(registry, "a");
    await registry.waitForRevision(1n, AbortSignal.abort());
    await registry.waitForRevision(null, AbortSignal.abort());
  });

  test("ends when another writer's change arrives", async () => {
    const { registry, store } = await openRegistry();
    const waiting = registry.waitForRevision(2n, AbortSignal.timeout(5000));
    await store.put(newVector("a"));
    await store.put(newVector("b"));
    await waiting;
    expect(registry.get("b").revision).toBe(2n);
  });

  test("ends with the deadline, or with the reason of the caller", async () => {
    const { registry } = await openRegistry();
    await expect(registry.waitForRevision(9n, AbortSignal.timeout(5))).rejects.toThrow(
      DeadlineExceededError,
    );
    const cancelled = AbortSignal.abort(new CancelledError());
    await expect(registry.waitForRevision(9n, cancelled)).rejects.toThrow(CancelledError);
  });
});

test("a registry that opens on a full store shows what is there", async () => {
  const store = new MemoryStore();
  await store.put(newVector("a", 1));
  await store.put(newVector("b", 2));
  const { digest } = await store.put(newVector("c", 3));
  await store.remove("c", digest);
  const { registry } = await openRegistry({ store });
  expect(registry.size).toBe(2);
  expect(registry.revision).toBe(4n);
  expect(() => registry.get("c")).toThrow(NotFoundError);
});
