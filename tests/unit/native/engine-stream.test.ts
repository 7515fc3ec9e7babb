/** Events and credits of one request: what is taken is granted back, and not before. */
import { beforeEach, describe, expect, it } from "vitest";
import type {
  NativeActivationEvent,
  NativeBinding,
  NativeEngineOptions,
  NativeEvent,
} from "../../../src/native/binding.js";
import {
  Engine,
  type EngineStream,
  eventBytes,
  type RequestEvent,
  type SubmitOptions,
} from "../../../src/native/engine.js";
import { FakeBinding } from "../../support/fake-binding.js";

const MIB = 1024 ** 2;

/** Sends what it is told to, and remembers what is granted. */
class Scripted extends FakeBinding {
  readonly grants: [id: number, credits: number, bytes: number][] = [];
  send: (events: NativeEvent[]) => void = () => {};

  override openEngine(options: unknown, onEvents: (events: NativeEvent[]) => void) {
    this.send = onEvents;
    return super.openEngine(options, onEvents);
  }

  override submit(): void {}

  override grant(id: number, credits: number, bytes = 0): void {
    this.grants.push([id, credits, bytes]);
  }
}

let scripted: Scripted;
let stream: EngineStream;
beforeEach(() => {
  scripted = new Scripted();
  const engine = new Engine(scripted as NativeBinding, {} as NativeEngineOptions);
  stream = engine.submit({} as SubmitOptions);
});

const rows = (bytes: number, lensEntries = 0): NativeActivationEvent => ({
  type: "activations",
  id: 1,
  site: "resid_post",
  layer: 0,
  positions: Int32Array.of(0),
  tokenIds: Uint32Array.of(0),
  dtype: "f32",
  rows: 1,
  cols: bytes / 4,
  data: new Uint8Array(bytes),
  completion: -1,
  lens: lensEntries === 0 ? [] : [Array(lensEntries).fill({ tokenId: 1, logprob: -1 })],
});

const done: RequestEvent = {
  type: "done",
  id: 1,
  status: { code: 0, message: "" },
  finishReasons: [],
  promptTokens: 0,
  cachedPromptTokens: 0,
  completionTokens: 0,
  timings: { queueNs: 0, prefillNs: 0, decodeNs: 0, timeToFirstTokenNs: 0 },
  applied: [],
};

describe("a reader", () => {
  it("takes about a MiB of rows at once, and grants it back when it asks for more", async () => {
    const batches = stream[Symbol.asyncIterator]();
    scripted.send(Array.from({ length: 10 }, () => rows(MIB / 4)));
    expect((await batches.next()).value).toHaveLength(4);
    expect(scripted.grants).toEqual([]);
    expect((await batches.next()).value).toHaveLength(4);
    expect(scripted.grants).toEqual([[1, 4, MIB]]);
    expect((await batches.next()).value).toHaveLength(2);
    scripted.send([done]);
    expect((await batches.next()).value).toEqual([done]);
    expect(scripted.grants.at(-1)).toEqual([1, 2, MIB / 2]);
    expect((await batches.next()).done).toBe(true);
  });

  it("takes an event that is larger alone", async () => {
    const batches = stream[Symbol.asyncIterator]();
    scripted.send([rows(3 * MIB), rows(16), done]);
    expect((await batches.next()).value).toHaveLength(1);
    expect((await batches.next()).value).toHaveLength(2);
    expect(scripted.grants).toEqual([[1, 1, 3 * MIB]]);
  });

  it("grants nothing for events that cost nothing", async () => {
    const batches = stream[Symbol.asyncIterator]();
    scripted.send([
      {
        type: "probe_scores",
        id: 1,
        completion: 0,
        probe: 0,
        positions: Int32Array.of(1),
        scores: Float32Array.of(1),
      },
    ]);
    await batches.next();
    scripted.send([done]);
    await batches.next();
    expect(scripted.grants).toEqual([]);
  });
});

it("rows count with their bytes and the entries of their lens", () => {
  expect(eventBytes(rows(400))).toBe(400);
  expect(eventBytes(rows(400, 5))).toBe(400 + 5 * 64);
  expect(eventBytes(done)).toBe(0);
});
