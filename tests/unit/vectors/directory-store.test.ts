import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  AlreadyExistsError,
  NotFoundError,
  StartupError,
  UnavailableError,
} from "../../../src/errors.js";
import { DirectoryStore } from "../../../src/vectors/directory/directory-store.js";
import type { VectorRecord } from "../../../src/vectors/vector.js";
import { CALIBRATION, DERIVATION, newProbe, newVector } from "./fixtures.js";
import { SimulatedDisk } from "./simulated-files.js";

let folder = "";
const stores: DirectoryStore[] = [];

beforeEach(() => {
  folder = path.join(mkdtempSync(path.join(tmpdir(), "directory-store-")), "registry");
});

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  rmSync(path.dirname(folder), { recursive: true });
});

async function open(onWarning?: (text: string) => void): Promise<DirectoryStore> {
  const store = await DirectoryStore.open(folder, onWarning ? { onWarning } : {});
  stores.push(store);
  return store;
}

async function liveRecords(store: DirectoryStore): Promise<VectorRecord[]> {
  const changes = await store.changesSince(0n);
  return changes.map(({ record }) => record).filter((record) => record !== null);
}

/** A closed registry with vectors a, b and a removed c. */
async function filled(): Promise<VectorRecord[]> {
  const store = await open();
  await store.put(newVector("a", 1, { lab: "x" }));
  await store.put({
    ...newVector("b", 2),
    derivation: DERIVATION,
    meanResidualNorms: [3, 4.5],
  });
  const { digest } = await store.put(newVector("c", 3));
  await store.remove("c", digest);
  const records = await liveRecords(store);
  await store.close();
  return records;
}

const manifest = () => path.join(folder, "manifest.jsonl");
const blobs = () => path.join(folder, "blobs");

describe("a folder that is opened again", () => {
  test("holds every record as it was, in the order of the writes", async () => {
    const before = await filled();
    const store = await open();
    expect(await liveRecords(store)).toEqual(before);
    const changes = await store.changesSince(0n);
    expect(changes.map(({ id, revision }) => [id, revision])).toEqual([
      ["a", 1n],
      ["b", 2n],
      ["c", 4n],
    ]);
  });

  test("goes on counting revisions, and knows what it holds", async () => {
    await filled();
    const store = await open();
    expect((await store.put(newVector("a", 1, { lab: "x" }))).revision).toBe(1n);
    await expect(store.put(newVector("a", 9))).rejects.toThrow(AlreadyExistsError);
    await expect(store.remove("c", `sha256:${"0".repeat(64)}`)).rejects.toThrow(NotFoundError);
    expect((await store.put(newVector("c", 9))).revision).toBe(5n);
    expect(await store.changesSince(4n)).toHaveLength(1);
  });

  test("loses the blobs that no id names", async () => {
    await filled();
    expect(readdirSync(blobs())).toHaveLength(3);
    writeFileSync(path.join(blobs(), "x.safetensors.tmp"), "cut short");
    writeFileSync(path.join(blobs(), "README"), "not ours");
    await open();
    expect(readdirSync(blobs()).filter((name) => name.endsWith(".safetensors"))).toHaveLength(2);
    expect(readdirSync(blobs())).toContain("README");
    expect(readdirSync(blobs())).toHaveLength(3);
  });

  test("shares one blob between ids with the same content", async () => {
    const store = await open();
    const { digest } = await store.put(newVector("a"));
    await store.put(newVector("b"));
    await store.remove("a", digest);
    await store.close();
    expect(readdirSync(blobs())).toHaveLength(1);
    expect((await liveRecords(await open())).map(({ id }) => id)).toEqual(["b"]);
    expect(readdirSync(blobs())).toHaveLength(1);
  });
});

describe("probes", () => {
  test("have ids of their own, and come back with all that they are", async () => {
    const store = await open();
    await store.put(newVector("a"));
    const probe = await store.put(newProbe("a"));
    expect((await store.put(newProbe("a"))).revision).toBe(probe.revision);
    await expect(store.put(newProbe("a", 9))).rejects.toMatchObject({ resourceType: "probe" });
    const calibrated = await store.put(newProbe("a", 1, CALIBRATION));
    expect(calibrated).toMatchObject({ digest: probe.digest, revision: 3n });
    // Fitting again does not undo the calibration.
    expect(await store.put(newProbe("a"))).toEqual(calibrated);
    const before = await liveRecords(store);
    await store.close();
    const again = await open();
    expect(await liveRecords(again)).toEqual(before);
    expect(before.map(({ kind, probe }) => [kind, probe?.calibration ?? null])).toEqual([
      ["vector", null],
      ["probe", CALIBRATION],
    ]);
    await expect(again.remove("a", probe.digest)).rejects.toThrow(NotFoundError);
    expect(await again.remove("a", probe.digest, "probe")).toBe(4n);
    expect((await liveRecords(again)).map(({ kind }) => kind)).toEqual(["vector"]);
  });

  test("that are gone or others are not calibrated", async () => {
    const store = await open();
    const calibrate = () => store.put(newProbe("a", 1, CALIBRATION));
    await expect(calibrate()).rejects.toThrow(NotFoundError);
    await store.put(newProbe("a", 2));
    await expect(calibrate()).rejects.toThrow(NotFoundError);
  });
});

describe("a damaged folder", () => {
  const flip = (file: string, at: number) => {
    const bytes = readFileSync(file);
    const index = at < 0 ? bytes.length + at : at;
    bytes[index] = (bytes[index] ?? 0) ^ 0x40;
    writeFileSync(file, bytes);
  };
  const dropLine = (line: number) => {
    const lines = readFileSync(manifest(), "utf8").split("\n");
    lines.splice(line - 1, 1);
    writeFileSync(manifest(), lines.join("\n"));
  };
  const firstBlob = () => path.join(blobs(), readdirSync(blobs()).sort()[0] ?? "");

  test.each<[string, () => void, RegExp]>([
    ["a flipped bit in the first line", () => flip(manifest(), 90), /manifest\.jsonl: line 1/],
    ["a flipped bit in the middle", () => flip(manifest(), 400), /manifest\.jsonl: line [23]/],
    ["a flipped bit in the last line", () => flip(manifest(), -20), /line 5: damaged/],
    ["a missing line", () => dropLine(3), /line 3: revision 3 where 2 is due/],
    ["a missing first line", () => dropLine(1), /line 1: .* is not .*format/],
    ["an empty manifest", () => writeFileSync(manifest(), ""), /no first line/],
    ["no manifest beside its blobs", () => rmSync(manifest()), /is missing, but there are blobs/],
    ["text in front", () => writeFileSync(manifest(), `x\n${readFileSync(manifest())}`), /line 1/],
    [
      "no blobs",
      () => {
        for (const name of readdirSync(blobs())) rmSync(path.join(blobs(), name));
      },
      /is missing, but the manifest names it/,
    ],
  ])("with %s is refused, and says where", async (_, damage, message) => {
    await filled();
    damage();
    await expect(open()).rejects.toThrow(message);
    await expect(open()).rejects.toThrow(StartupError);
    expect(existsSync(path.join(folder, "LOCK"))).toBe(false);
  });

  test.each<[string, (blob: string) => void, RegExp]>([
    ["a flipped bit in its rows", (blob) => flip(blob, -1), /damaged: its rows have digest/],
    ["a flipped bit in its header", (blob) => flip(blob, 9), /safetensors: /],
    ["its end cut off", (blob) => writeFileSync(blob, readFileSync(blob).subarray(0, -1)), /trunc/],
    ["nothing in it", (blob) => writeFileSync(blob, ""), /truncated/],
  ])("with a blob with %s is refused, and says which", async (_, damage, message) => {
    const store = await open();
    await store.put(newVector("a"));
    await store.close();
    damage(firstBlob());
    await expect(open()).rejects.toThrow(message);
    await expect(open()).rejects.toThrow(path.basename(firstBlob()));
  });

  test.each<[string, (whole: Buffer) => Buffer]>([
    ["half a line", (whole) => whole.subarray(0, -30)],
    ["a line without its end", (whole) => whole.subarray(0, -1)],
    ["zeros", (whole) => Buffer.concat([whole.subarray(0, -10), Buffer.alloc(10)])],
    [
      "zeros in a line",
      (whole) => Buffer.concat([whole.subarray(0, -10), Buffer.alloc(9), Buffer.from("\n")]),
    ],
  ])("with %s at the end of the manifest drops that write, with a warning", async (_, tear) => {
    await filled();
    writeFileSync(manifest(), tear(readFileSync(manifest())));
    const warnings: string[] = [];
    const store = await open((text) => warnings.push(text));
    expect((await liveRecords(store)).map(({ id }) => id)).toEqual(["a", "b", "c"]);
    expect(warnings).toHaveLength(1);
    expect((await store.put(newVector("d"))).revision).toBe(4n);
    await store.close();
    expect(await liveRecords(await open())).toHaveLength(4);
  });
});

describe("a write that fails", () => {
  const openOn = (disk: SimulatedDisk, held = async () => true) =>
    DirectoryStore.open("/registry", {
      files: disk,
      takeLock: async () => ({ isHeld: held, release: async () => {} }),
    });

  test.each([
    ["writeSynced", 0],
    ["writeSynced", 1],
    ["rename", 0],
    ["syncFolder", 0],
    ["appendSynced", 0],
    ["appendSynced", 1],
  ] as const)(
    "in %s, step %i, is UNAVAILABLE, changes nothing, and the next one succeeds",
    async (operation, step) => {
      const disk = new SimulatedDisk();
      const store = await openOn(disk);
      await store.put(newVector("a", 1));
      disk.failOnce(operation, step);
      await expect(store.put(newVector("b", 2))).rejects.toThrow(UnavailableError);
      expect(await liveRecords(store)).toHaveLength(1);
      expect((await store.put(newVector("c", 3))).revision).toBe(2n);
      await store.close();
      const ids = (await liveRecords(await openOn(disk))).map(({ id }) => id);
      expect(ids).toEqual(["a", "c"]);
    },
  );

  test("and cannot be undone ends all writing, while reads go on", async () => {
    const disk = new SimulatedDisk();
    const store = await openOn(disk);
    await store.put(newVector("a", 1));
    disk.appendSynced = disk.truncateSynced = async () => {
      throw new Error("EIO");
    };
    await expect(store.put(newVector("b", 2))).rejects.toThrow(UnavailableError);
    disk.appendSynced = SimulatedDisk.prototype.appendSynced;
    await expect(store.put(newVector("b", 2))).rejects.toThrow(UnavailableError);
    expect(await liveRecords(store)).toHaveLength(1);
  });

  test("because another server took the lock is UNAVAILABLE and writes nothing", async () => {
    const disk = new SimulatedDisk();
    let held = true;
    const store = await openOn(disk, async () => held);
    held = false;
    const before = disk.steps;
    await expect(store.put(newVector("a"))).rejects.toThrow(UnavailableError);
    expect(disk.steps).toBe(before);
  });

  test("after close is UNAVAILABLE", async () => {
    const store = await open();
    await store.close();
    await store.close();
    await expect(store.put(newVector("a"))).rejects.toThrow(UnavailableError);
  });
});

test("many writes at once are one after the other, each durable", async () => {
  const store = await open();
  const seen: bigint[] = [];
  store.subscribe((revision) => seen.push(revision));
  const writes = Array.from({ length: 25 }, (_, i) => store.put(newVector(`v${i}`, i)));
  const revisions = (await Promise.all(writes)).map(({ revision }) => revision);
  expect(new Set(revisions).size).toBe(25);
  expect(seen).toEqual([...revisions].sort((a, b) => Number(a - b)));
  await store.close();
  expect(await liveRecords(await open())).toHaveLength(25);
});
