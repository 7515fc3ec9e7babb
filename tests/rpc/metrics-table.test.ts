/** Every metric of the service, as Prometheus sees it before the first call. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TestServer } from "../support/server.js";
import { inlineVector } from "../support/vectors.js";

let server: TestServer;
let families: Map<string, Family>;
beforeAll(async () => {
  const flags = ["--metrics-vectors", "mood", "--metrics-probes", "honest"];
  server = await TestServer.start({ flags });
  families = parse((await server.http("/metrics")).body);
});
afterAll(() => server.stop());

interface Family {
  type: string;
  help: string;
  samples: { name: string; labels: Record<string, string>; value: number }[];
}

/** The text exposition format, families of the service only, without their prefix. */
function parse(text: string): Map<string, Family> {
  const found = new Map<string, Family>();
  let family: Family = { type: "", help: "", samples: [] };
  for (const line of text.split("\n")) {
    const [, kind, name = "", rest = ""] = /^# (HELP|TYPE) llamasteer_(\S+) (.+)$/.exec(line) ?? [];
    if (kind === "HELP") {
      family = { type: "", help: rest, samples: [] };
      found.set(name, family);
    }
    if (kind === "TYPE") family.type = rest;
    const sample = /^llamasteer_([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample) continue;
    const [, sampleName = "", labels = "", value = ""] = sample;
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = "", text = ""]) => [
      key,
      text,
    ]);
    family.samples.push({
      name: sampleName,
      labels: Object.fromEntries(pairs),
      value: Number(value),
    });
  }
  return found;
}

const TOKEN = ".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80";
const BETWEEN = ".0025 .005 .01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5";
const DURATION = ".01 .02 .04 .08 .16 .32 .64 1.28 2.56 5.12 10.24 20.48 40.96 81.92 163.84 327.68";
const BATCH = "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384";
const LOAD = ".0001 .0003 .001 .003 .01 .03 .1 .3 1";
const DELTA = ".001 .003 .01 .03 .1 .3 1 3 10";
const SCORE = "-300 -100 -30 -10 -3 -1 -.3 -.1 0 .1 .3 1 3 10 30 100 300";

const MODEL = { model: ["tiny"] };
const METHODS = 20;
const RESULTS = { result: ["ok", "no_room", "error"] };

/** Name, type, values of each label before the first call (null: one sample without), buckets. */
const TABLE: [string, string, Record<string, string[] | number> | null, string?][] = [
  ["requests_waiting", "gauge", MODEL],
  ["requests_running", "gauge", MODEL],
  ["queued_prompt_tokens", "gauge", null],
  ["kv_cache_usage_ratio", "gauge", null],
  ["kv_cache_config_info", "gauge", { block_size: ["16"], blocks: 1 }],
  ["requests_total", "counter", { method: METHODS, code: ["OK"] }],
  [
    "admission_rejections_total",
    "counter",
    { reason: ["queue", "tokens", "kv", "draining", "quota", "deadline"] },
  ],
  ["time_to_first_token_seconds", "histogram", null, TOKEN],
  ["inter_token_latency_seconds", "histogram", null, BETWEEN],
  ["request_duration_seconds", "histogram", null, DURATION],
  ["request_queue_seconds", "histogram", null, DURATION],
  ["request_prefill_seconds", "histogram", null, DURATION],
  ["request_decode_seconds", "histogram", null, DURATION],
  ["prompt_tokens_total", "counter", null],
  ["generation_tokens_total", "counter", null],
  ["cached_prompt_tokens_total", "counter", null],
  ["finished_total", "counter", { reason: ["stop", "stop_text", "length", "cancelled"] }],
  ["batch_tokens", "histogram", null, BATCH],
  ["preemptions_total", "counter", null],
  ["vectors_registered", "gauge", null],
  ["vectors_resident", "gauge", null],
  ["vector_bytes", "gauge", null],
  ["vectors_per_request", "histogram", null, "0 1 2 4 8 16"],
  ["vector_tokens_total", "counter", { vector: ["mood", "_other"] }],
  ["vector_loads_total", "counter", RESULTS],
  ["vector_load_seconds", "histogram", RESULTS, LOAD],
  ["gate_evaluations_total", "counter", { fired: ["true", "false"] }],
  ["steering_delta_ratio", "histogram", null, DELTA],
  ["probe_score", "histogram", { probe: ["honest"] }, SCORE],
  ["registry_revision", "gauge", null],
  ["registry_sync_age_seconds", "gauge", null],
  ["capture_bytes_total", "counter", null],
  ["nonfinite_total", "counter", { stage: ["logits"] }],
  ["engine_healthy", "gauge", null],
  ["scheduler_last_step_age_seconds", "gauge", null],
  ["event_loop_lag_seconds", "gauge", null],
  ["device_errors_total", "counter", { class: ["fatal"] }],
  ["build_info", "gauge", { version: 1, device: ["cpu"], dtype: 1, isa: 1 }],
  // Beside the table of the design: LoRA adapters, captured rows on their way, connections.
  ["adapters_resident", "gauge", null],
  ["adapter_bytes", "gauge", null],
  ["capture_reserved_bytes", "gauge", null],
  ["connections", "gauge", null],
  ["connections_retired_total", "counter", null],
  ["connections_refused_total", "counter", null],
];

describe("metrics", () => {
  it("are these and no others", () => {
    expect([...families.keys()].sort()).toEqual(TABLE.map(([name]) => name).sort());
  });

  it.each(TABLE)("%s is a %s with its labels, there from the start", (name, type, labels) => {
    const family = families.get(name);
    expect(family?.type).toBe(type);
    expect(family?.help).not.toBe("");
    const samples = (family?.samples ?? []).filter((sample) =>
      type === "histogram" ? sample.name === `${name}_count` : true,
    );
    for (const sample of samples) {
      expect(Object.keys(sample.labels).sort()).toEqual(Object.keys(labels ?? {}).sort());
    }
    if (!labels) expect(samples).toHaveLength(1);
    for (const [label, values] of Object.entries(labels ?? {})) {
      const seen = [...new Set(samples.map((sample) => sample.labels[label] ?? ""))];
      expect(seen).not.toContain("");
      if (typeof values === "number") expect(seen.length).toBeGreaterThanOrEqual(values);
      else expect(seen.sort()).toEqual([...values].sort());
    }
  });

  it.each(TABLE.filter(([, type]) => type === "histogram"))(
    "%s (%s) has its buckets, each once for each label set",
    (name, _type, labels, buckets = "") => {
      const sets = Object.values(labels ?? {}).flat().length || 1;
      const bounds = (families.get(name)?.samples ?? [])
        .filter((sample) => sample.name === `${name}_bucket`)
        .map(({ labels: { le } }) => Number(le === "+Inf" ? Number.POSITIVE_INFINITY : le));
      const expected = [...buckets.split(" ").map(Number), Number.POSITIVE_INFINITY];
      expect(bounds).toEqual(Array.from({ length: sets }, () => expected).flat());
    },
  );

  it.each(TABLE.filter(([, type]) => type !== "gauge"))("%s (%s) starts at 0", (name) => {
    for (const { value } of families.get(name)?.samples ?? []) expect(value).toBe(0);
  });

  it("count vectors that are put on the engine, once for the same content", async () => {
    const steering = [inlineVector(1, [0.25])];
    const sampling = { maxNewTokens: 2, ignoreEos: true };
    for (const prompt of ["a", "b"]) await server.client.generate({ prompt, steering, sampling });
    expect(await server.metric('vector_loads_total{result="ok"}')).toBe(1);
    expect(await server.metric('vector_load_seconds_count{result="ok"}')).toBe(1);
    expect(await server.metric('vector_loads_total{result="no_room"}')).toBe(0);
  });
});
