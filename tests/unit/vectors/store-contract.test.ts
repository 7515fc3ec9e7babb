/** What every store promises, held by each of them: memory, a folder, PostgreSQL. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { AlreadyExistsError, NotFoundError } from "../../../src/errors.js";
import { DirectoryStore } from "../../../src/vectors/directory/directory-store.js";
import { MemoryStore } from "../../../src/vectors/memory-store.js";
import { PostgresStore } from "../../../src/vectors/postgres/postgres-store.js";
import type { NewVector, VectorStore } from "../../../src/vectors/store.js";
import { PostgresServer } from "../../support/postgres.js";
import { CALIBRATION, contentOf, DERIVATION, newProbe, newVector } from "./fixtures.js";

let server: PostgresServer;
beforeAll(async () => {
  server = await PostgresServer.start();
});
afterAll(() => server.dispose());

interface Place {
  /** A new, empty place. */
  fresh(): Promise<() => Promise<VectorStore>>;
}

let folders: string[] = [];
let databases = 0;
const PLACES: Record<string, Place> = {
  memory: {
    fresh: async () => {
      const store = new MemoryStore();
      return async () => store;
    },
  },
  folder: {
    fresh: async () => {
      const folder = mkdtempSync(path.join(tmpdir(), "store-contract-"));
      folders.push(folder);
      return () => DirectoryStore.open(path.join(folder, "registry"));
    },
  },
  PostgreSQL: {
    fresh: async () => {
      const url = await server.database(`contract_${databases++}`);
      return () => PostgresStore.open(url);
    },
  },
};

describe.each(Object.entries(PLACES))("a store in %s", (_, place) => {
  const open: VectorStore[] = [];
  afterEach(async () => {
    for (const store of open.splice(0)) await store.close();
    for (const folder of folders) rmSync(folder, { recursive: true });
    folders = [];
  });

  async function opened(): Promise<{ store: VectorStore; reopen(): Promise<VectorStore> }> {
    const openAgain = await place.fresh();
    const store = await openAgain();
    open.push(store);
    return {
      store,
      reopen: async () => {
        await store.close();
        const again = await openAgain();
        open.push(again);
        return again;
      },
    };
  }

  test("gives each write the next revision, and tells what is newer than one", async () => {
    const { store } = await opened();
    expect(await store.changesSince(0n)).toEqual([]);
    const a = await store.put(newVector("a", 1));
    const b = await store.put(newVector("b", 2));
    expect([a.revision, b.revision]).toEqual([1n, 2n]);
    expect(await store.remove("a", a.digest)).toBe(3n);
    const changes = await store.changesSince(0n);
    expect(changes.map(({ id, revision, record }) => [id, revision, record === null])).toEqual([
      ["b", 2n, false],
      ["a", 3n, true],
    ]);
    expect(await store.changesSince(2n)).toHaveLength(1);
    expect(await store.changesSince(3n)).toEqual([]);
  });

  test("writes nothing for the same again, and refuses other content or labels", async () => {
    const { store } = await opened();
    const first = await store.put(newVector("a", 1, { lab: "x" }));
    expect(await store.put(newVector("a", 1, { lab: "x" }))).toEqual(first);
    await expect(store.put(newVector("a", 2, { lab: "x" }))).rejects.toThrow(AlreadyExistsError);
    await expect(store.put(newVector("a", 1))).rejects.toThrow(AlreadyExistsError);
    expect(await store.changesSince(1n)).toEqual([]);
  });

  test("removes only the content that was named, and takes the id again", async () => {
    const { store } = await opened();
    const { digest } = await store.put(newVector("a", 1));
    await expect(store.remove("a", `sha256:${"0".repeat(64)}`)).rejects.toThrow(NotFoundError);
    await store.remove("a", digest);
    await expect(store.remove("a", digest)).rejects.toThrow(NotFoundError);
    expect((await store.put(newVector("a", 9))).revision).toBe(3n);
  });

  test("keeps ids of vectors and probes apart, and replaces what stands beside a content", async () => {
    const { store } = await opened();
    await store.put(newVector("a"));
    await store.put(newProbe("a"));
    const calibrated = await store.put(newProbe("a", 1, CALIBRATION));
    expect(calibrated.revision).toBe(3n);
    await expect(store.put(newProbe("b", 1, CALIBRATION))).rejects.toThrow(NotFoundError);
    await expect(store.put(newProbe("a", 2, CALIBRATION))).rejects.toThrow(NotFoundError);
    const changes = await store.changesSince(0n);
    expect(changes.map(({ kind, record }) => [kind, record?.probe?.calibration])).toEqual([
      ["vector", undefined],
      ["probe", CALIBRATION],
    ]);
  });

  test("gives every record back as it was, to the bit", async () => {
    const { store, reopen } = await opened();
    const values = [-0, 1e-45, 3.4028234663852886e38, -1.5, 0, 1, 2, 3].map((value) =>
      Math.abs(value) > 1e17 ? 1e17 : value,
    );
    const labels: Record<string, string> = JSON.parse(
      '{"__proto__": "own", "zero": "a\\u0000b", "word": "Größe 👩‍🔬", "quote": "\\"\\\\"}',
    );
    const vector: NewVector = {
      ...newVector("exact", 1, labels),
      content: contentOf([0, 7], values),
      derivation: DERIVATION,
      meanResidualNorms: [3, 0.1],
    };
    const written = await store.put(vector);
    const [change] = await store.changesSince(0n);
    expect(change?.record).toEqual(written);
    expect(Object.is(change?.record?.content.rows[0], -0)).toBe(true);
    const again = await reopen();
    expect((await again.changesSince(0n))[0]?.record).toEqual(written);
  });

  test("keeps a content that another id still names", async () => {
    const { store, reopen } = await opened();
    const { digest } = await store.put(newVector("a"));
    await store.put(newVector("b"));
    await store.remove("a", digest);
    const again = await reopen();
    const live = (await again.changesSince(0n)).filter(({ record }) => record !== null);
    expect(live.map(({ id, record }) => [id, record?.digest])).toEqual([["b", digest]]);
  });

  test("lets one of many writers of an id win, and counts without a gap", async () => {
    const { store } = await opened();
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) => store.put(newVector(`v${i % 3}`, i % 2))),
    );
    const revisions = results.flatMap((result) =>
      result.status === "fulfilled" ? [result.value.revision] : [],
    );
    expect([...new Set(revisions)].sort()).toEqual([1n, 2n, 3n]);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toBeInstanceOf(AlreadyExistsError);
    }
  });

  test("calls its listeners after a write until they end it", async () => {
    const { store } = await opened();
    let calls = 0;
    const heard = new Promise<void>((resolve) => {
      const end = store.subscribe(() => {
        calls += 1;
        end();
        resolve();
      });
    });
    await store.put(newVector("a"));
    await heard;
    await store.put(newVector("b"));
    expect(calls).toBe(1);
  });

  test("closes twice", async () => {
    const { store } = await opened();
    await store.close();
    await store.close();
  });
});
