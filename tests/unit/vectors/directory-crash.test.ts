/** Power is cut before every single step of opening and writing, many times with other luck. */
import { describe, expect, test } from "vitest";
import { DirectoryStore } from "../../../src/vectors/directory/directory-store.js";
import { CALIBRATION, newProbe, newVector } from "./fixtures.js";
import { SimulatedDisk, seededRandom } from "./simulated-files.js";

const FATES = 40;

function open(disk: SimulatedDisk): Promise<DirectoryStore> {
  return DirectoryStore.open("/registry", {
    files: disk,
    takeLock: async () => ({ isHeld: async () => true, release: async () => {} }),
    now: () => new Date(0),
  });
}

/** "id:first number" of each vector, in the order of the writes. */
async function stateOf(store: DirectoryStore): Promise<string> {
  const changes = await store.changesSince(0n);
  return changes.map(({ id, record }) => `${id}:${record?.content.rows[0] ?? "gone"}`).join(" ");
}

/** How many steps `body` takes on a disk that `prepare` has filled. */
async function countSteps(
  prepare: (disk: SimulatedDisk) => Promise<DirectoryStore>,
  body: (store: DirectoryStore) => Promise<unknown>,
): Promise<number> {
  const disk = new SimulatedDisk();
  const store = await prepare(disk);
  const before = disk.steps;
  await body(store);
  return disk.steps - before;
}

async function withTwoVectors(disk: SimulatedDisk): Promise<DirectoryStore> {
  const store = await open(disk);
  await store.put(newVector("a", 1));
  await store.put(newVector("b", 2));
  return store;
}

const digestOfA = async (store: DirectoryStore) =>
  (await store.changesSince(0n)).find(({ id }) => id === "a")?.record?.digest ?? "";

describe.each<[string, (store: DirectoryStore) => Promise<unknown>, string]>([
  ["a put", (store) => store.put(newVector("c", 3)), "a:1 b:2 c:3"],
  ["a put of known content", (store) => store.put(newVector("c", 1)), "a:1 b:2 c:1"],
  ["a put of a probe", (store) => store.put(newProbe("a", 3)), "a:1 b:2 a:3"],
  ["a removal", async (store) => store.remove("a", await digestOfA(store)), "b:2 a:gone"],
])("a crash at any step of %s", (_, write, after) => {
  test("leaves the state before or after it, and after it once it was acknowledged", async () => {
    const steps = await countSteps(withTwoVectors, write);
    expect(steps).toBeGreaterThanOrEqual(2);
    const seen = new Set<string>();
    for (let step = 0; step <= steps; step += 1) {
      for (let fate = 0; fate < FATES; fate += 1) {
        const disk = new SimulatedDisk();
        const store = await withTwoVectors(disk);
        disk.losePowerAfter(step);
        const acknowledged = await write(store).then(
          () => true,
          () => false,
        );
        expect(acknowledged).toBe(step === steps);
        disk.crash(seededRandom(step * 1000 + fate));

        const reopened = await open(disk);
        const state = await stateOf(reopened);
        expect(acknowledged ? [after] : ["a:1 b:2", after]).toContain(state);
        seen.add(state);

        await reopened.put(newVector("z", 9));
        expect(await stateOf(await open(disk))).toBe(`${state} z:9`);
      }
    }
    expect([...seen].sort()).toEqual(["a:1 b:2", after].sort());
  });
});

test("a crash at any step of a calibration leaves the probe with or without it", async () => {
  const seen = new Set<boolean>();
  for (let step = 0; step < 8; step += 1) {
    for (let fate = 0; fate < FATES; fate += 1) {
      const disk = new SimulatedDisk();
      const store = await open(disk);
      await store.put(newProbe("p"));
      disk.losePowerAfter(step);
      await store.put(newProbe("p", 1, CALIBRATION)).catch(() => {});
      disk.crash(seededRandom(step * 1000 + fate));
      const [change] = await (await open(disk)).changesSince(0n);
      const calibration = change?.record?.probe?.calibration ?? null;
      expect([null, CALIBRATION]).toContainEqual(calibration);
      expect(change?.record?.content.rows[0]).toBe(1);
      seen.add(calibration !== null);
    }
  }
  expect(seen.size).toBe(2);
});

test("a crash at any step of the first opening leaves a folder that opens empty", async () => {
  const fresh = new SimulatedDisk();
  await open(fresh);
  for (let step = 0; step <= fresh.steps; step += 1) {
    for (let fate = 0; fate < FATES; fate += 1) {
      const disk = new SimulatedDisk();
      disk.losePowerAfter(step);
      await open(disk).catch(() => {});
      disk.crash(seededRandom(step * 1000 + fate));
      const store = await open(disk);
      expect(await stateOf(store)).toBe("");
      await store.put(newVector("a", 1));
      expect(await stateOf(await open(disk))).toBe("a:1");
    }
  }
});

test("a crash at any step of cleaning up after a crash loses nothing", async () => {
  const prepare = async (disk: SimulatedDisk) => {
    const store = await withTwoVectors(disk);
    await store.remove("a", await digestOfA(store));
    // Half a line, and a temporary blob.
    disk.losePowerAfter(4);
    await store.put(newVector("c", 3)).catch(() => {});
    disk.crash(() => 0.999);
    await disk.writeSynced("/registry/blobs/x.safetensors.tmp", Buffer.from("x"));
    const start = disk.steps;
    return { disk, start };
  };
  const whole = await prepare(new SimulatedDisk());
  await open(whole.disk);
  const steps = whole.disk.steps - whole.start;
  expect(steps).toBeGreaterThan(6);
  for (let step = 0; step <= steps; step += 1) {
    for (let fate = 0; fate < FATES; fate += 1) {
      const { disk } = await prepare(new SimulatedDisk());
      disk.losePowerAfter(step);
      await open(disk).catch(() => {});
      disk.crash(seededRandom(step * 1000 + fate));
      expect(await stateOf(await open(disk))).toBe("b:2 a:gone");
    }
  }
});
