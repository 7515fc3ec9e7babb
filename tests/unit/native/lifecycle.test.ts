/** What the addon promises about requests and events: src/native/binding.ts. */
import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  NativeEngine,
  NativeEngineOptions,
  NativeEvent,
  NativeRequest,
} from "../../../src/native/binding.js";
import { loadNativeBinding } from "../../../src/native/load.js";
import { engineOptions, GREEDY } from "../../parity/native-run.js";
import { TINY_MODEL, writeSyntheticCheckpoint } from "../../parity/synthetic-checkpoint.js";

const binding = loadNativeBinding();
const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-lifecycle-"));
beforeAll(() => writeSyntheticCheckpoint(folder, TINY_MODEL, 1));
afterAll(() => rmSync(folder, { recursive: true }));

const CANCELLED = 1;
const INVALID_ARGUMENT = 3;
const NOT_FOUND = 5;
const FAILED_PRECONDITION = 9;
const UNAVAILABLE = 14;
const PLENTY = 1 << 20;

function makeRequest(id: number, overrides: Partial<NativeRequest> = {}): NativeRequest {
  return {
    id,
    promptTokenIds: Uint32Array.of(1, 2, 3, 4, 5),
    completions: 1,
    maxNewTokens: 8,
    sampling: { ...GREEDY, temperature: 1, seed: 2n ** 64n - 1n },
    steering: [],
    capture: null,
    promptLogprobsFrom: null,
    credits: PLENTY,
    captureCreditBytes: PLENTY,
    proofPromptTokens: 0,
    cacheSalt: "",
    deadlineNs: 0n,
    adapter: 0,
    probes: [],
    compareUnsteered: false,
    ...overrides,
  };
}

/** An engine and every event it sent. */
class Recorder {
  readonly events: NativeEvent[] = [];
  readonly engine: NativeEngine;
  private wake: () => void = () => {};

  constructor(options: NativeEngineOptions) {
    this.engine = binding.openEngine(options, (events) => {
      this.events.push(...events);
      this.wake();
    });
  }

  static async ready(overrides: Partial<NativeEngineOptions> = {}): Promise<Recorder> {
    const recorder = new Recorder(engineOptions(folder, overrides));
    await recorder.until((events) => events.some(({ type }) => type === "ready"));
    return recorder;
  }

  async until(condition: (events: NativeEvent[]) => boolean): Promise<void> {
    while (!condition(this.events)) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  done(id: number) {
    return this.events.flatMap((event) =>
      event.type === "done" && event.id === id ? [event] : [],
    );
  }

  tokens(id: number) {
    return this.events.flatMap((event) =>
      event.type === "token" && event.id === id ? [event] : [],
    );
  }

  async untilDone(...ids: number[]): Promise<void> {
    await this.until(() => ids.every((id) => this.done(id).length > 0));
  }

  /** Time for events that must not come. */
  async settle(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe("a request", () => {
  it("sends its tokens in order and exactly one done event, the last", async () => {
    const recorder = await Recorder.ready();
    recorder.engine.submit(makeRequest(7));
    await recorder.untilDone(7);
    await recorder.settle();
    expect(recorder.tokens(7).length).toBe(8);
    expect(recorder.tokens(7).map(({ finish }) => finish)).toEqual([
      ...Array<string>(7).fill("none"),
      "length",
    ]);
    const [done, ...more] = recorder.done(7);
    expect(more).toEqual([]);
    expect(recorder.events.at(-1)).toBe(done);
    expect(done).toMatchObject({
      status: { code: 0, message: "" },
      finishReasons: ["length"],
      promptTokens: 5,
      cachedPromptTokens: 0,
      completionTokens: 8,
      applied: [],
    });
    expect(done?.timings.timeToFirstTokenNs).toBeGreaterThan(0);
    recorder.engine.close();
  });

  it("gives the same tokens for the same seed, all 64 bits of it", async () => {
    const recorder = await Recorder.ready();
    const seeds = [2n ** 64n - 1n, 2n ** 64n - 1n, 2n ** 32n - 1n];
    for (const [index, seed] of seeds.entries()) {
      const sampling = { ...GREEDY, temperature: 1.5, seed };
      recorder.engine.submit(makeRequest(index, { sampling, maxNewTokens: 32 }));
    }
    await recorder.untilDone(0, 1, 2);
    const [first, second, other] = seeds.map((_, id) =>
      recorder.tokens(id).map(({ token }) => token.tokenId),
    );
    expect(second).toEqual(first);
    expect(other).not.toEqual(first);
    recorder.engine.close();
  });

  it("ends with its cancellation", async () => {
    const recorder = await Recorder.ready();
    recorder.engine.submit(makeRequest(1, { maxNewTokens: 400 }));
    await recorder.until(() => recorder.tokens(1).length > 2);
    recorder.engine.cancel(1, -1);
    await recorder.untilDone(1);
    expect(recorder.done(1)).toMatchObject([{ finishReasons: ["cancelled"] }]);
    expect(recorder.tokens(1).length).toBeLessThan(400);
    recorder.engine.close();
  });

  it("stops for want of credits and goes on when they are granted", async () => {
    const recorder = await Recorder.ready();
    recorder.engine.submit(makeRequest(1, { credits: 3 }));
    await recorder.until(() => recorder.tokens(1).length === 3);
    await recorder.settle();
    expect(recorder.tokens(1).length).toBe(3);
    expect(recorder.done(1)).toEqual([]);
    recorder.engine.grant(1, PLENTY, 0);
    await recorder.untilDone(1);
    expect(recorder.tokens(1).length).toBe(8);
    recorder.engine.close();
  });

  it.each([
    ["an empty prompt", { promptTokenIds: new Uint32Array() }],
    ["a token outside the vocabulary", { promptTokenIds: Uint32Array.of(TINY_MODEL.vocabSize) }],
    ["more tokens than the context holds", { maxNewTokens: 2 ** 32 - 1 }],
    ["no completion", { completions: 0 }],
  ])("is refused by its done event for %s", async (_what, overrides) => {
    const recorder = await Recorder.ready();
    recorder.engine.submit(makeRequest(1, overrides));
    await recorder.untilDone(1);
    expect(recorder.done(1)).toMatchObject([{ status: { code: INVALID_ARGUMENT } }]);
    recorder.engine.close();
  });

  it("is refused for a vector that is not there", async () => {
    const recorder = await Recorder.ready();
    const steering = {
      vector: 5,
      kind: "add" as const,
      coefficient: 1,
      clampMin: 0,
      clampMax: 0,
      layers: Int32Array.of(0),
      preserveNorm: false,
      positionBegin: 0,
      positionEnd: 10,
      gate: null,
      afterText: new Uint8Array(),
    };
    recorder.engine.submit(makeRequest(1, { steering: [steering] }));
    await recorder.untilDone(1);
    expect([NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION]).toContain(
      recorder.done(1)[0]?.status.code,
    );
    recorder.engine.close();
  });

  it("may not take the id of one that runs", async () => {
    const recorder = await Recorder.ready();
    recorder.engine.submit(makeRequest(1, { maxNewTokens: 100 }));
    expect(() => recorder.engine.submit(makeRequest(1))).toThrow(
      new TypeError("request.id: 1 is in use"),
    );
    await recorder.untilDone(1);
    expect(recorder.done(1).length).toBe(1);
    recorder.engine.submit(makeRequest(1));
    await recorder.until(() => recorder.done(1).length === 2);
    recorder.engine.close();
  });
});

describe("an engine", () => {
  it("ends every request when it is closed, and may be closed twice", async () => {
    const recorder = await Recorder.ready();
    const ids = [1, 2, 3, 4];
    for (const id of ids) recorder.engine.submit(makeRequest(id, { maxNewTokens: 400 }));
    await recorder.until(() => recorder.tokens(1).length > 0);
    recorder.engine.close();
    recorder.engine.close();
    await recorder.untilDone(...ids);
    await recorder.settle();
    for (const id of ids) {
      expect(recorder.done(id)).toMatchObject([{ status: { code: CANCELLED } }]);
    }
  });

  it("answers after it is closed: requests and vectors are unavailable, nothing crashes", async () => {
    const recorder = await Recorder.ready();
    recorder.engine.close();
    recorder.engine.submit(makeRequest(9));
    recorder.engine.cancel(9, -1);
    recorder.engine.grant(9, 1, 0);
    recorder.engine.dropVector(1);
    expect(recorder.engine.stats()).toMatchObject({ runningRequests: 0, kvBlocks: 0 });
    await recorder.untilDone(9);
    expect(recorder.done(9)).toMatchObject([{ status: { code: UNAVAILABLE } }]);
    expect(() => recorder.engine.putVector(vectorOf(1, 0))).toThrow(
      expect.objectContaining({ code: UNAVAILABLE }),
    );
  });

  it("tells why the weights cannot be loaded", async () => {
    const broken = path.join(folder, "broken");
    writeSyntheticCheckpoint(broken, TINY_MODEL, 1);
    const options = engineOptions(broken);
    truncateSync(path.join(broken, "model.safetensors"), 20_000);
    const recorder = new Recorder(options);
    await recorder.until((events) => events.some(({ type }) => type === "fatal"));
    expect(recorder.events.at(-1)).toMatchObject({
      type: "fatal",
      status: {
        code: INVALID_ARGUMENT,
        message: expect.stringMatching(/^tensor .* ends at byte \d+ of a file of 20000$/),
      },
    });
    recorder.engine.submit(makeRequest(1));
    await recorder.untilDone(1);
    expect(recorder.done(1)).toMatchObject([{ status: { code: UNAVAILABLE } }]);
    recorder.engine.close();
  });

  it("refuses a device that is not there", async () => {
    const recorder = new Recorder(engineOptions(folder, { device: "cuda:99" }));
    await recorder.until((events) => events.some(({ type }) => type === "fatal"));
    expect(recorder.events.at(-1)).toMatchObject({ status: { code: FAILED_PRECONDITION } });
  });

  it("shares the CPU with a second one", async () => {
    const [first, second] = await Promise.all([Recorder.ready(), Recorder.ready()]);
    for (const { engine } of [first, second]) engine.submit(makeRequest(1, { maxNewTokens: 64 }));
    await Promise.all([first.untilDone(1), second.untilDone(1)]);
    const ids = (recorder: Recorder) => recorder.tokens(1).map(({ token }) => token.tokenId);
    expect(ids(second)).toEqual(ids(first));
    first.engine.close();
    second.engine.close();
  });

  it("holds vectors by handle and gives errors with a code", async () => {
    const { engine } = await Recorder.ready();
    engine.putVector(vectorOf(1, 0));
    engine.putVector(vectorOf(1, 0));
    expect(() => engine.putVector(vectorOf(1, 1))).toThrow(
      expect.objectContaining({ code: FAILED_PRECONDITION }),
    );
    expect(() => engine.putVector({ ...vectorOf(2, 0), layers: Int32Array.of(99) })).toThrow(
      expect.objectContaining({ code: INVALID_ARGUMENT }),
    );
    engine.dropVector(1);
    engine.putVector(vectorOf(1, 1));
    engine.close();
  });
});

function vectorOf(handle: number, content: number) {
  return {
    handle,
    digest: new Uint8Array(32).fill(content),
    layers: Int32Array.of(0),
    rows: new Float32Array(TINY_MODEL.hiddenSize).fill(1),
  };
}
