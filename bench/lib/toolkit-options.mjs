/** What bench/toolkit.mjs adds to a plain request, and how it makes sure that it was done. */
import { allOf, steering } from "./engine.mjs";

const VECTOR = 1;
const DIRECTION = 2;
export const ADAPTER = 1;
const ENDLESS_BYTES = 2 ** 40;

const gate = (layer, scope) => ({
  vector: DIRECTION,
  layer,
  metric: "cosine",
  comparator: "above",
  threshold: 0,
  scope,
  promptTokens: 0,
});

function capture(layers, lensTopK) {
  return {
    capture: {
      sites: ["resid_post"],
      layers: Int32Array.from(layers),
      positionBegin: 0,
      positionEnd: 0x7fffffff,
      mean: false,
      beforeSteering: false,
      dtype: "f32",
      lensTopK,
      afterText: new Uint8Array(),
    },
    captureCreditBytes: ENDLESS_BYTES,
  };
}

const probe = (layer) => ({
  vector: DIRECTION,
  layer,
  read: "each_token",
  afterText: new Uint8Array(),
});

const steered = (layers) => ({ steering: [steering(VECTOR, allOf(layers))] });

/** Name in the table -> (number of layers, index of the stream) -> fields of the request. */
export const OPTIONS = {
  plain: () => ({}),
  "steered, all layers": (layers) => steered(layers),
  "the same behind a gate at each token": (layers) => ({
    steering: [{ ...steering(VECTOR, allOf(layers)), gate: gate(0, "each_token") }],
  }),
  "the same behind a gate on the last prompt token": (layers) => ({
    steering: [
      { ...steering(VECTOR, allOf(layers)), gate: gate(layers >> 1, "prompt_last_token") },
    ],
  }),
  "a probe at each token": (layers) => ({ probes: [probe(layers >> 1)] }),
  "8 probes at each token": (layers) => ({
    probes: Array.from({ length: 8 }, (_, i) => probe((i * (layers - 1)) >> 3)),
  }),
  "capture of all layers": (layers) => capture(allOf(layers), 0),
  "capture of one layer with a lens of 10": (layers) => capture([layers >> 1], 10),
  "steered and compared with unsteered": (layers) => ({
    ...steered(layers),
    compareUnsteered: true,
  }),
  "an adapter of rank 16 on every projection": () => ({ adapter: ADAPTER }),
  "the adapter on every second stream": (_layers, stream) => ({
    adapter: stream % 2 === 0 ? ADAPTER : 0,
  }),
};

/** Counts what came of an option; throws at the end where nothing did. */
export class Witness {
  constructor(request) {
    this.request = request;
    this.rows = 0;
    this.scores = 0;
    this.divergences = 0;
  }

  add(event) {
    if (event.type === "activations") this.rows += event.rows;
    if (event.type === "probe_scores") this.scores += event.scores.length;
    if (event.type === "token" && event.klToUnsteered > 0) this.divergences += 1;
    if (event.type === "done") this.check(event);
  }

  check({ status, applied }) {
    if (status.code !== 0) throw new Error(status.message);
    const { steering: steerings = [], probes = [], capture: spec, compareUnsteered } = this.request;
    const wants = (condition, what) => {
      if (!condition) throw new Error(`${what} was asked for and did nothing`);
    };
    for (const [index, { gate: condition }] of steerings.entries()) {
      if (condition) wants(applied[index].gateEvaluations > 0, "a gate");
      else wants(applied[index].generatedTokens > 0, "steering");
    }
    if (probes.length > 0) wants(this.scores > 0, "a probe");
    if (spec) wants(this.rows > 0, "a capture");
    if (compareUnsteered) wants(this.divergences > 0, "a comparison");
  }
}
