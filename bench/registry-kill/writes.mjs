/** What a registry in a folder is asked to write, and what it then holds. */
const content = (layers, values) => ({
  hiddenSize: values.length / layers.length,
  layers: Int32Array.from(layers),
  rows: Float32Array.from(values),
});

const record = (kind, id, first) => ({
  kind,
  id,
  content:
    kind === "vector"
      ? content([2, 5], [first, 2, 3, 4, 5, 6, 7, 8])
      : content([3], [first, 2, 3, 4]),
  labels: { made: "here" },
  derivation: null,
  meanResidualNorms: [],
  probe: null,
  replaces: false,
});

const FIT = { auroc: 0.75, positives: 2, negatives: 2, randomAuroc: [0.5], randomSeed: "7" };
const CALIBRATION = {
  threshold: -1.5,
  falsePositiveRate: 0.01,
  measuredFalsePositiveRate: 0,
  benignInputs: 9,
  benignDigest: `sha256:${"01".repeat(32)}`,
  benignMean: -2,
  benignStandardDeviation: 0.25,
};

const probe = (id, first, calibration = null) => ({
  ...record("probe", id, first),
  probe: { fit: FIT, calibration },
  replaces: calibration !== null,
});

export async function fill(store) {
  await store.put(record("vector", "a", 1));
  await store.put(record("vector", "b", 2));
  await store.put(probe("p", 1));
}

export const WRITES = {
  "put of a vector": (store) => store.put(record("vector", "c", 3)),
  "put of known content": (store) => store.put({ ...record("vector", "c", 1), labels: {} }),
  "put of a probe": (store) => store.put(probe("q", 9)),
  "calibration of a probe": (store) => store.put(probe("p", 1, CALIBRATION)),
  "removal of a vector": async (store) => {
    const changes = await store.changesSince(0n);
    await store.remove("a", changes.find(({ id }) => id === "a").record.digest);
  },
  // The first opening of a folder is a write too.
  "first opening": null,
};

export const putLater = (store) => store.put(record("vector", "later", 4));

/** Everything but the time of day. */
export async function stateOf(store) {
  const changes = await store.changesSince(0n);
  return JSON.stringify(
    changes.map(({ revision, kind, id, record: found }) => [
      String(revision),
      kind,
      id,
      found && [found.digest, [...found.content.rows], found.labels, found.probe],
    ]),
  );
}
