/** The disk of the registry is full: writes are refused, reads go on, and room is enough to go on. */
import { cpSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { LlamaSteerClient } from "../../src/client/client.js";
import { DirectoryStore } from "../../src/vectors/directory/directory-store.js";
import {
  type FullDisk,
  mountsArePossible,
  smallFileSystem,
  smallFiles,
} from "../support/full-disk.js";
import { TemporaryFolder } from "../support/tiny-checkpoint.js";
import { randomRow } from "../support/vectors.js";

const HIDDEN_SIZE = 256;
const LAYERS = 8;
const REFUSAL = {
  code: "UNAVAILABLE",
  reason: "REGISTRY_UNAVAILABLE",
  retryDelayMs: expect.any(Number),
};

const canMount = mountsArePossible();
if (!canMount) {
  console.warn(
    "This system lets nobody but root mount a file system: the full disk is tried as a limit on the size of files only.",
  );
}
const disks: [string, () => Promise<FullDisk>][] = [["a limit on the size of files", smallFiles]];
if (canMount) disks.push(["a file system of 512 KiB", smallFileSystem]);

let disk: FullDisk;
let client: LlamaSteerClient;

async function start(open: () => Promise<FullDisk>): Promise<void> {
  disk = await open();
  client = new LlamaSteerClient({ address: disk.server.grpc });
}

afterEach(async () => {
  client.close();
  await disk.stop();
});

/** 1 KiB a layer, and a header. */
function create(vectorId: string, layers: number) {
  const seed = vectorId.length + vectorId.charCodeAt(0);
  const rows = Array.from({ length: layers }, (_, layer) => ({
    layer,
    data: randomRow(seed + layer, 0.05, HIDDEN_SIZE),
  }));
  return client.vectors.create({ vectorId, rows });
}

const generate = (vectorId: string) =>
  client.generate({ prompt: "a", steering: [{ vectorId }], sampling: { maxNewTokens: 2 } });

/** Ids and digests that a server would find now. */
async function stored(): Promise<(string | undefined)[][]> {
  const copy = new TemporaryFolder();
  const registry = copy.join("registry");
  cpSync(disk.registry, registry, { recursive: true });
  rmSync(path.join(registry, "LOCK"));
  const warnings: string[] = [];
  const store = await DirectoryStore.open(registry, { onWarning: (text) => warnings.push(text) });
  const changes = await store.changesSince(0n);
  await store.close();
  copy.remove();
  expect(warnings).toEqual([]);
  return changes.map(({ id, record }) => [id, record?.digest]);
}

describe.each(disks)("%s", (_name, open) => {
  it("refuses writes, answers from memory, and writes again once there is room", async () => {
    await start(open);
    const a = await create("a", LAYERS);
    disk.fill();
    await expect(create("b", LAYERS)).rejects.toMatchObject(REFUSAL);
    await expect(create("c", 1)).rejects.toMatchObject(REFUSAL);
    expect((await generate("a")).applied[0]?.digest).toBe(a.digest);
    expect((await client.vectors.get("a")).revision).toBe(a.revision);
    await expect(generate("b")).rejects.toMatchObject({ code: "NOT_FOUND" });
    // The same content is there already: nothing needs to be written.
    expect(await create("a", LAYERS)).toEqual(a);
    expect(await stored()).toEqual([["a", a.digest]]);

    disk.free();
    const b = await create("b", LAYERS);
    expect((await generate("b")).applied[0]?.digest).toBe(b.digest);
    await client.vectors.delete("a");
    expect(await stored()).toEqual([
      ["b", b.digest],
      ["a", undefined],
    ]);
  });

  it("holds nothing of the writes that it refused", async () => {
    await start(open);
    const blobs = () => readdirSync(path.join(disk.registry, "blobs"));
    // Room for half of a large vector.
    disk.fill(4096);
    await expect(create("b", LAYERS)).rejects.toMatchObject(REFUSAL);
    expect(blobs()).toEqual([]);
    await create("c", 1);
    expect(blobs()).toHaveLength(1);
  });
});
