/** Engine events become deltas: text, scores and distances, whatever their order. */
import { describe, expect, it } from "vitest";
import { EngineFault } from "../../../src/errors.js";
import { Completions, WholeCompletion } from "../../../src/generation/completions.js";
import type { GenerationContext } from "../../../src/generation/context.js";
import { PinnedProbes } from "../../../src/generation/probes.js";
import type { SamplingSpec } from "../../../src/generation/sampling.js";
import { openModel } from "../../../src/model/model.js";
import type {
  NativeDoneEvent,
  NativeFinishReason,
  NativeProbeEvent,
  NativeTokenEvent,
} from "../../../src/native/binding.js";
import type { EngineStream } from "../../../src/native/engine.js";
import type { ProbeRegistry } from "../../../src/probes/registry.js";
import { tinyCheckpoint } from "../../support/tiny-checkpoint.js";

const model = openModel(tinyCheckpoint(), "tiny");
const context = { model } as unknown as GenerationContext;
const PROMPT_TOKENS = 10;

const released: string[] = [];
const registry = {
  acquire: (probeId: string) => ({
    probeId,
    digest: `sha256:${probeId}`,
    layer: 1,
    threshold: null,
    handle: 7,
    layers: [1],
    zeroLayers: [],
    release: () => released.push(probeId),
  }),
} as unknown as ProbeRegistry;
const probes = PinnedProbes.pin(
  [
    { field: "probes[0]", probeId: "a", read: "each_token", text: null },
    { field: "probes[1]", probeId: "b", read: "after_text", text: "ü" },
  ],
  registry,
);

function completionsOf(overrides: Partial<SamplingSpec> = {}, compareUnsteered = false) {
  const sampling: SamplingSpec = {
    maxNewTokens: 8,
    temperature: 0,
    topP: 1,
    topK: 0,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    seed: 1n,
    completions: 1,
    stop: [],
    stopTokenIds: [],
    ignoreEos: true,
    logprobs: 0,
    logitBias: new Map(),
    ...overrides,
  };
  const cancelled: number[] = [];
  const stream = {
    cancel: (completion: number) => cancelled.push(completion),
  } as unknown as EngineStream;
  const options = { sampling, probes, compareUnsteered, promptTokens: PROMPT_TOKENS };
  return { completions: new Completions(context, options), stream, cancelled };
}

/** An id whose text is this letter. */
const idOf = async (letter: string) => {
  const [id] = await model.tokenizer.encode(letter, false);
  return id ?? -1;
};

const token = (
  tokenId: number,
  finish: NativeFinishReason = "none",
  completion = 0,
  klToUnsteered: number | null = null,
): NativeTokenEvent => ({
  type: "token",
  id: 1,
  completion,
  token: { tokenId, logprob: -1, top: [] },
  hasLogprob: false,
  finish,
  klToUnsteered,
});

const scores = (
  probe: number,
  completion: number,
  ...at: [number, number][]
): NativeProbeEvent => ({
  type: "probe_scores",
  id: 1,
  completion,
  probe,
  positions: Int32Array.from(at, ([position]) => position),
  scores: Float32Array.from(at, ([, score]) => score),
});

const done = (code = 0): NativeDoneEvent => ({
  type: "done",
  id: 1,
  status: { code, message: "" },
  finishReasons: ["length"],
  promptTokens: PROMPT_TOKENS,
  cachedPromptTokens: 0,
  completionTokens: 0,
  timings: { queueNs: 0, prefillNs: 0, decodeNs: 0, timeToFirstTokenNs: 0 },
  applied: [],
});

describe("scores of probes", () => {
  it("of the prompt are in every completion, of a completion in that one only", async () => {
    const { completions, stream } = completionsOf({ completions: 2 });
    const a = await idOf("a");
    const deltas = completions.take(
      [scores(0, -1, [9, 1.5]), token(a), token(a, "none", 1), scores(0, 1, [10, 2])],
      stream,
    );
    expect(deltas.map(({ completion }) => completion)).toEqual([0, 1]);
    expect(deltas[0]?.probeScores).toEqual([
      { probe: 0, probeId: "a", positions: [9], scores: [1.5] },
    ]);
    expect(deltas[1]?.probeScores).toEqual([
      { probe: 0, probeId: "a", positions: [9, 10], scores: [1.5, 2] },
    ]);
  });

  it.each(["before", "behind"])(
    "that come %s their token end with the token that completes a stop text",
    async (order) => {
      const { completions, stream, cancelled } = completionsOf({ stop: ["b"] });
      const rows = ["a", "b", "a", "a"];
      const events = [];
      for (const [index, letter] of rows.entries()) {
        const pair = [
          scores(0, index === 0 ? -1 : 0, [9 + index, index]),
          token(await idOf(letter)),
        ];
        events.push(...(order === "before" ? pair : pair.reverse()));
      }
      const [delta] = completions.take(events, stream);
      expect(delta?.text).toBe("a");
      expect(delta?.tokenIds).toHaveLength(2);
      expect(delta?.probeScores[0]).toMatchObject({ positions: [9, 10], scores: [0, 1] });
      expect(cancelled).toEqual([0]);
      expect(completions.finish(done(1), "request")).toEqual(["stop_text"]);
    },
  );

  it("fail the request when they are not finite, or of no probe of the request", () => {
    const { completions, stream } = completionsOf();
    const bad = [
      scores(0, -1, [9, Number.NaN]),
      scores(0, -1, [9, Infinity]),
      scores(2, -1, [9, 1]),
    ];
    for (const event of bad) expect(() => completions.take([event], stream)).toThrow(EngineFault);
  });

  it("have an entry for each probe in a whole completion, scored or not", async () => {
    const { completions, stream } = completionsOf();
    const whole = new WholeCompletion(probes.applied());
    const a = await idOf("a");
    for (const events of [
      [scores(1, -1, [3, 0.5]), token(a)],
      [scores(1, 0, [10, 0.25]), token(a, "length")],
    ]) {
      for (const delta of completions.take(events, stream)) whole.add(delta);
    }
    expect(whole.delta).toMatchObject({
      text: "aa",
      tokenIds: [a, a],
      probeScores: [
        { probe: 0, positions: [], scores: [] },
        { probe: 1, positions: [3, 10], scores: [0.5, 0.25] },
      ],
    });
  });
});

describe("distances to the unsteered model", () => {
  it("come one a token when they are asked for, and not otherwise", async () => {
    const a = await idOf("a");
    const asked = completionsOf({}, true);
    const events = [token(a, "none", 0, 0.25), token(a, "length", 0, 0)];
    expect(asked.completions.take(events, asked.stream)[0]?.klToUnsteered).toEqual([0.25, 0]);
    const not = completionsOf();
    expect(not.completions.take(events, not.stream)[0]?.klToUnsteered).toEqual([]);
  });

  it.each([null, Number.NaN, Infinity])("fail the request when one is %s", async (kl) => {
    const { completions, stream } = completionsOf({}, true);
    const event = token(await idOf("a"), "none", 0, kl);
    expect(() => completions.take([event], stream)).toThrow(EngineFault);
  });
});

describe("the end", () => {
  it("without a reason for each completion is a fault", async () => {
    const { completions, stream } = completionsOf({ completions: 2 });
    completions.take([token(await idOf("a"), "length")], stream);
    expect(() => completions.finish(done(), "request")).toThrow(EngineFault);
    completions.take([token(await idOf("a"), "stop", 1)], stream);
    expect(completions.finish(done(), "request")).toEqual(["length", "stop"]);
    expect(completions.tokens).toBe(2);
  });

  it("releases each probe", () => {
    released.length = 0;
    PinnedProbes.pin(
      [{ field: "probes[0]", probeId: "x", read: "prompt_last", text: null }],
      registry,
    ).release();
    expect(released).toEqual(["x"]);
  });
});
