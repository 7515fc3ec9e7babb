import { expect, test } from "vitest";
import { AlreadyExistsError, InvalidArgumentError, NotFoundError } from "../../../src/errors.js";
import { ProbeRegistry } from "../../../src/probes/registry.js";
import { MemoryStore } from "../../../src/vectors/memory-store.js";
import {
  CALIBRATION,
  DERIVATION,
  FIT,
  LIMITS,
  MODEL,
  newProbe,
  openRegistry,
  row,
} from "../vectors/fixtures.js";

async function open(model = MODEL, store = new MemoryStore()) {
  const { registry, engine } = await openRegistry({ store, model });
  const probes = new ProbeRegistry(registry.replica, registry.resident, model, LIMITS);
  const create = (id: string, first = 1) =>
    probes.create({
      id,
      row: row(3, first, 2, 3, 4),
      labels: {},
      derivation: DERIVATION,
      meanResidualNorm: 5,
      fit: FIT,
    });
  return { registry, engine, probes, create };
}

test("a probe and a vector may have the same id", async () => {
  const { registry, probes, create } = await open();
  await registry.create({ id: "a", rows: [row(1, 1, 1, 1, 1)], labels: {}, derivation: null });
  const probe = await create("a");
  expect(probes.get("a")).toBe(probe);
  expect(registry.get("a").layers).toEqual([1]);
  expect([registry.size, probes.size]).toEqual([1, 1]);
  expect(probe.stats).toEqual([{ layer: 3, l2Norm: Math.sqrt(30), meanResidualNorm: 5 }]);
  await expect(create("a", 2)).rejects.toThrow(AlreadyExistsError);
  expect(await create("a")).toBe(probe);
  await registry.remove("a");
  expect(probes.get("a")).toBe(probe);
  await probes.remove(`a@${probe.digest}`);
  expect(() => probes.get("a")).toThrow(NotFoundError);
});

test("a pinned probe keeps the content and the threshold that it began with", async () => {
  const { engine, probes, create } = await open();
  const probe = await create("a");
  const before = probes.acquire("a", "probes[0].probe_id");
  expect(before).toMatchObject({ probeId: "a", layer: 3, threshold: null, digest: probe.digest });
  expect(engine.vectors.get(before.handle)?.rows).toEqual(Float32Array.of(1, 2, 3, 4));
  await probes.calibrate(probe, CALIBRATION);
  const after = probes.acquire("a", "probes[0].probe_id");
  expect([before.threshold, after.threshold]).toEqual([null, CALIBRATION.threshold]);
  expect(after.handle).toBe(before.handle);
  await probes.remove("a");
  expect(engine.vectors.has(before.handle)).toBe(true);
  before.release();
  after.release();
});

test("what is calibrated is the probe that was read", async () => {
  const { probes, create } = await open();
  const probe = await create("a");
  await probes.remove("a");
  await expect(probes.calibrate(probe, CALIBRATION)).rejects.toThrow(NotFoundError);
  await create("a", 2);
  await expect(probes.calibrate(probe, CALIBRATION)).rejects.toThrow(NotFoundError);
});

test("unknown probes and probes of another model are refused with the field", async () => {
  const store = new MemoryStore();
  await store.put(newProbe("a"));
  const { probes } = await open({ hiddenSize: 4, layers: 3 }, store);
  const field = "probes[1].probe_id";
  expect(() => probes.acquire("b", field)).toThrow(
    expect.objectContaining({ resourceType: "probe", resourceName: "b" }),
  );
  for (const reference of ["a", "A", "a@sha256:1"]) {
    expect(() => probes.acquire(reference, field)).toThrow(InvalidArgumentError);
    expect(() => probes.acquire(reference, field)).toThrow(/^probes\[1\]\.probe_id: /);
  }
});
