/** Replicas on one PostgreSQL: what one writes the others see, through outages and restarts. */
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { StartupError, UnavailableError } from "../../../src/errors.js";
import { PostgresStore } from "../../../src/vectors/postgres/postgres-store.js";
import type { VectorRegistry } from "../../../src/vectors/registry.js";
import { PostgresServer } from "../../support/postgres.js";
import { newVector, openRegistry } from "./fixtures.js";

/** Longer than any test: only notifications bring news. */
const NEVER_MS = 3_600_000;

let server: PostgresServer;
let url = "";
let databases = 0;
const registries: VectorRegistry[] = [];
const stores: PostgresStore[] = [];

beforeAll(async () => {
  server = await PostgresServer.start();
});
afterAll(() => server.dispose());
beforeEach(async () => {
  url = await server.database(`replicas_${databases++}`);
});
afterEach(async () => {
  for (const registry of registries.splice(0)) await registry.close();
  for (const store of stores.splice(0)) await store.close();
});

async function open(pollIntervalMs = NEVER_MS): Promise<PostgresStore> {
  const store = await PostgresStore.open(url, { pollIntervalMs });
  stores.push(store);
  return store;
}

async function replica(pollIntervalMs = NEVER_MS): Promise<VectorRegistry> {
  const store = await PostgresStore.open(url, { pollIntervalMs });
  const { registry } = await openRegistry({ store });
  registries.push(registry);
  return registry;
}

/** As CreateVector does. */
function create(registry: VectorRegistry, id: string) {
  const rows = [{ layer: 1, values: Float32Array.of(1, 2, 3, 4) }];
  return registry.create({ id, rows, labels: {}, derivation: null });
}

const inTime = () => AbortSignal.timeout(20_000);

async function sql(statement: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

describe("two replicas", () => {
  test("tell each other of writes and removals by notification", async () => {
    const [a, b] = [await replica(), await replica()];
    const { revision, digest } = await create(a, "x");
    await b.waitForRevision(revision, inTime());
    expect(b.get("x").digest).toBe(digest);
    const removed = await b.remove("x");
    await a.waitForRevision(removed, inTime());
    expect(a.size).toBe(0);
  });

  test("find each other's writes by looking when no notification comes", async () => {
    const a = await replica();
    const b = await replica(50);
    await sql(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND query LIKE 'LISTEN%'`,
    );
    const { revision } = await create(a, "x");
    await b.waitForRevision(revision, inTime());
    expect(b.size).toBe(1);
  });

  test("listen again after their connection was cut", async () => {
    const [a, b] = [await replica(), await replica()];
    await sql(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    );
    // The first write may find only dead connections in the pool.
    const { revision } = await vi.waitFor(() => create(a, "x"), { timeout: 20_000, interval: 50 });
    await b.waitForRevision(revision, inTime());
    expect(b.size).toBe(1);
  });

  test("start together on an empty database", async () => {
    const opened = await Promise.all(Array.from({ length: 6 }, () => open()));
    const records = await Promise.all(opened.map((store, i) => store.put(newVector(`v${i}`, i))));
    expect(records.map(({ revision }) => revision).sort()).toEqual([1n, 2n, 3n, 4n, 5n, 6n]);
  });

  test("miss nothing while both write and one reads on", async () => {
    const [a, b, reader] = [await open(), await open(), await open()];
    const seen: bigint[] = [];
    let done = false;
    const reading = (async () => {
      let last = 0n;
      for (let final = false; !final; ) {
        final = done;
        for (const { revision } of await reader.changesSince(last)) {
          seen.push(revision);
          last = revision;
        }
      }
    })();
    await Promise.all(
      Array.from({ length: 60 }, (_, i) => (i % 2 === 0 ? a : b).put(newVector(`v${i}`, i))),
    );
    done = true;
    await reading;
    expect(seen).toEqual(Array.from({ length: 60 }, (_, i) => BigInt(i + 1)));
  });
});

describe("a database that goes away", () => {
  test("refuses writes, leaves reads, and both go on when it is back", async () => {
    const [a, b] = [await replica(), await replica()];
    await b.waitForRevision((await create(a, "before")).revision, inTime());
    await server.stop("SIGQUIT");
    await expect(create(a, "during")).rejects.toThrow(UnavailableError);
    expect(a.get("before").id).toBe("before");
    expect(a.acquire("before", "vector_id").vectorId).toBe("before");
    await server.resume();
    const { revision } = await vi.waitFor(() => create(a, "after"), {
      timeout: 20_000,
      interval: 100,
    });
    await b.waitForRevision(revision, inTime());
    expect(b.list({ pageSize: 10, pageToken: "", filter: {} }).records.map(({ id }) => id)).toEqual(
      ["after", "before"],
    );
  });

  test("crashing at any moment leaves each write done or not done", {
    timeout: 120_000,
  }, async () => {
    const store = await open();
    const acknowledged = new Set<string>();
    let next = 0;
    for (let round = 0; round < 6; round += 1) {
      let stop = false;
      const writers = Array.from({ length: 4 }, async () => {
        while (!stop) {
          const id = `v${next++}`;
          const written = await store.put(newVector(id, next)).catch(() => null);
          if (written) acknowledged.add(id);
        }
      });
      await new Promise((resolve) => setTimeout(resolve, 30 + 17 * round));
      await server.stop("SIGQUIT");
      stop = true;
      await Promise.all(writers);
      await server.resume();
    }
    const changes = await vi.waitFor(() => store.changesSince(0n), { timeout: 20_000 });
    const ids = new Set(changes.map(({ id }) => id));
    for (const id of acknowledged) expect(ids).toContain(id);
    expect(acknowledged.size).toBeGreaterThan(0);
    // Read back whole, counted without a gap: changesSince proves each content against its digest.
    expect(changes.map(({ revision }) => revision)).toEqual(
      changes.map((_, index) => BigInt(index + 1)),
    );
  });
});

describe("what cannot be opened", () => {
  test("is named without its password", async () => {
    const refused = `postgres://me:secret@127.0.0.1:${server.port}/absent`;
    const error = await PostgresStore.open(refused).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StartupError);
    expect(String(error)).toContain(`postgres://127.0.0.1:${server.port}/absent`);
    expect(String(error)).not.toContain("secret");
  });

  test("is a database that a newer program has changed", async () => {
    await (await open()).close();
    await sql("UPDATE llama_steer.schema_version SET version = 99");
    await expect(open()).rejects.toThrow(/version 99.*use a newer one/);
  });

  test("keeps damaged rows from being served", async () => {
    const store = await open();
    await store.put(newVector("a"));
    await sql("UPDATE llama_steer.blobs SET content = set_byte(content, length(content) - 1, 200)");
    await expect(store.changesSince(0n)).rejects.toThrow(/"a": damaged/);
  });
});
