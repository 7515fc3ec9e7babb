/** VectorService over the directory store. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { collect, TestServer } from "../support/server.js";
import { randomRow } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

const rows = (seed: number) => [0, 2].map((layer) => ({ layer, data: randomRow(seed + layer) }));

describe("VectorService", () => {
  it("describes what it registered", async () => {
    const labels = { topic: "tests", __proto__x: "1" };
    const created = await server.client.vectors.create({
      vectorId: "a.b-c_1",
      rows: rows(1),
      labels,
    });
    expect(created).toMatchObject({
      vectorId: "a.b-c_1",
      layers: [0, 2],
      hiddenSize: 64,
      labels,
      derivation: null,
    });
    expect(created.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(created.stats.map(({ layer }) => layer)).toEqual([0, 2]);
    const age = Date.now() / 1000 - Number(created.createTime?.seconds);
    expect(Math.abs(age)).toBeLessThan(60);
    expect(await server.client.vectors.get("a.b-c_1")).toEqual(created);
  });

  it("takes the same content again, and gives it the same digest under another id", async () => {
    const first = await server.client.vectors.create({ vectorId: "same", rows: rows(5) });
    expect(await server.client.vectors.create({ vectorId: "same", rows: rows(5) })).toEqual(first);
    const reversed = rows(5).reverse();
    const other = await server.client.vectors.create({ vectorId: "same-too", rows: reversed });
    expect(other.digest).toBe(first.digest);
    expect(BigInt(other.revision)).toBeGreaterThan(BigInt(first.revision));
  });

  it("lists by id, in pages, by label", async () => {
    for (let index = 0; index < 7; index++) {
      const labels = { parity: index % 2 === 0 ? "even" : "odd" };
      await server.client.vectors.create({ vectorId: `list-${index}`, rows: rows(20), labels });
    }
    const even = await collect(server.client.vectors.list({ parity: "even" }));
    expect(even.map(({ vectorId }) => vectorId)).toEqual(
      [0, 2, 4, 6].map((index) => `list-${index}`),
    );
    const page = await server.client.vectors.listPage({ pageSize: 2, filter: { parity: "odd" } });
    expect(page.vectors.map(({ vectorId }) => vectorId)).toEqual(["list-1", "list-3"]);
    const rest = await server.client.vectors.listPage({
      pageSize: 2,
      pageToken: page.nextPageToken,
      filter: { parity: "odd" },
    });
    expect(rest.vectors.map(({ vectorId }) => vectorId)).toEqual(["list-5"]);
    expect(rest.nextPageToken).toBe("");
  });

  it("deletes, and the id is free again", async () => {
    await server.client.vectors.create({ vectorId: "gone", rows: rows(1) });
    const { revision } = await server.client.vectors.delete("gone");
    await expect(server.client.vectors.get("gone")).rejects.toMatchObject({ code: "NOT_FOUND" });
    const again = await server.client.vectors.create({ vectorId: "gone", rows: rows(2) });
    expect(BigInt(again.revision)).toBeGreaterThan(BigInt(revision));
  });

  it("serves a client's own write to a request that names its revision", async () => {
    const { revision } = await server.client.vectors.create({ vectorId: "fresh", rows: rows(3) });
    const response = await server.client.generate({
      prompt: "a",
      sampling: { maxNewTokens: 2 },
      steering: [{ vectorId: "fresh" }],
      minRegistryRevision: revision,
    });
    expect(BigInt(response.registryRevision)).toBeGreaterThanOrEqual(BigInt(revision));
  });

  it("waits for a revision that is still to come", async () => {
    const { revision } = await server.client.vectors.listPage();
    const waiting = server.client.generate({
      prompt: "a",
      sampling: { maxNewTokens: 2 },
      steering: [{ vectorId: "to-come" }],
      minRegistryRevision: String(BigInt(revision) + 1n),
    });
    await server.client.vectors.create({ vectorId: "to-come", rows: rows(4) });
    expect((await waiting).applied[0]?.vectorId).toBe("to-come");
  });
});
