/** The metrics of the service: names, labels, buckets. */
import { beforeEach, describe, expect, it } from "vitest";
import type { EngineFigures } from "../../../src/observability/engine-metrics.js";
import { Metrics } from "../../../src/observability/metrics.js";

const METHOD = "llamasteer.v1.InferenceService/Generate";
const IDLE: EngineFigures = {
  waitingRequests: 0,
  runningRequests: 0,
  waitingPromptTokens: 0,
  kvBlocks: 10,
  kvBlocksUsed: 0,
  lastStepAgeSeconds: 0,
  preemptions: 0,
  promptTokens: 0,
  cachedPromptTokens: 0,
  generatedTokens: 0,
  nonfiniteRows: 0,
  captureBytes: 0,
  captureReservedBytes: 0,
  residentVectors: 0,
  residentVectorBytes: 0,
  residentAdapters: 0,
  residentAdapterBytes: 0,
  gateEvaluations: 0,
  gateFired: 0,
  batchTokens: [],
  healthy: true,
};

let metrics: Metrics;
let engine: EngineFigures;
beforeEach(() => {
  metrics = new Metrics({
    model: "tiny",
    labelledVectors: ["mood"],
    labelledProbes: ["deceit"],
    methods: [METHOD],
  });
  engine = { ...IDLE };
  metrics.observeEngine(() => engine);
});

async function value(sample: string): Promise<number> {
  const line = (await metrics.scrape()).split("\n").find((text) => text.startsWith(`${sample} `));
  return line === undefined ? Number.NaN : Number(line.split(" ").at(-1));
}

describe("label sets known beforehand", () => {
  it.each([
    `llamasteer_requests_total{method="${METHOD}",code="OK"}`,
    'llamasteer_requests_waiting{model="tiny"}',
    ...["queue", "tokens", "kv", "draining", "quota", "deadline"].map(
      (reason) => `llamasteer_admission_rejections_total{reason="${reason}"}`,
    ),
    ...["stop", "stop_text", "length", "cancelled"].map(
      (reason) => `llamasteer_finished_total{reason="${reason}"}`,
    ),
    'llamasteer_vector_tokens_total{vector="mood"}',
    'llamasteer_vector_tokens_total{vector="_other"}',
    'llamasteer_nonfinite_total{stage="logits"}',
    'llamasteer_device_errors_total{class="fatal"}',
  ])("%s starts at 0", async (sample) => {
    expect(await value(sample)).toBe(0);
  });
});

it("counters follow the engine's totals, whenever they are read", async () => {
  engine = { ...IDLE, promptTokens: 7, generatedTokens: 3, preemptions: 1 };
  expect(await value("llamasteer_prompt_tokens_total")).toBe(7);
  engine = { ...engine, promptTokens: 9 };
  expect(await value("llamasteer_prompt_tokens_total")).toBe(9);
  expect(await value("llamasteer_prompt_tokens_total")).toBe(9);
  expect(await value("llamasteer_preemptions_total")).toBe(1);
});

it("gauges show what is the case", async () => {
  engine = {
    ...IDLE,
    kvBlocksUsed: 4,
    runningRequests: 2,
    lastStepAgeSeconds: 0.5,
    healthy: false,
  };
  expect(await value("llamasteer_kv_cache_usage_ratio")).toBe(0.4);
  expect(await value('llamasteer_requests_running{model="tiny"}')).toBe(2);
  expect(await value("llamasteer_scheduler_last_step_age_seconds")).toBe(0.5);
  expect(await value("llamasteer_engine_healthy")).toBe(0);
});

it("vectors that are not listed share one label", async () => {
  metrics.generationEnded({
    queueSeconds: 0.1,
    prefillSeconds: 0.2,
    decodeSeconds: 0.3,
    timeToFirstTokenSeconds: 0.3,
    finishReasons: ["stop", "length"],
    applied: [
      { vectorId: "mood", tokens: 5, meanDeltaRatio: 0.1 },
      { vectorId: "someone's", tokens: 3, meanDeltaRatio: 0.2 },
      { vectorId: "", tokens: 4, meanDeltaRatio: 0.2 },
    ],
  });
  expect(await value('llamasteer_vector_tokens_total{vector="mood"}')).toBe(5);
  expect(await value('llamasteer_vector_tokens_total{vector="_other"}')).toBe(7);
  expect(await value('llamasteer_finished_total{reason="stop"}')).toBe(1);
  expect(await value('llamasteer_vectors_per_request_bucket{le="4"}')).toBe(1);
  expect(await metrics.scrape()).not.toContain("someone");
});

it("buckets are those of the documentation", async () => {
  metrics.callEnded(METHOD, "OK", 1);
  const text = await metrics.scrape();
  const buckets = (name: string) =>
    [...text.matchAll(new RegExp(`^llamasteer_${name}_bucket\\{le="([^"]+)"`, "gm"))].map(
      ([, bound]) => bound,
    );
  expect(buckets("time_to_first_token_seconds")).toEqual(
    ".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 +Inf"
      .split(" ")
      .map((bound) => bound.replace(/^\./, "0.")),
  );
  expect(buckets("request_duration_seconds").at(-2)).toBe("327.68");
  expect(buckets("request_duration_seconds")).toHaveLength(17);
  expect(buckets("batch_tokens").slice(0, 3)).toEqual(["1", "8", "16"]);
  expect(buckets("batch_tokens").at(-2)).toBe("16384");
  expect(buckets("vectors_per_request")).toEqual(["0", "1", "2", "4", "8", "16", "+Inf"]);
});
