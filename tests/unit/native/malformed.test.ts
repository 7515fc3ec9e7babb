/** Malformed arguments are TypeErrors that name the field; never a crash, never accepted. */
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  NATIVE_API_VERSION,
  type NativeAdapter,
  type NativeEngine,
  type NativeEngineOptions,
  type NativeRequest,
  type NativeTensorLocation,
  type NativeVector,
} from "../../../src/native/binding.js";
import { loadNativeBinding } from "../../../src/native/load.js";
import { engineOptions, GREEDY } from "../../parity/native-run.js";
import { TINY_MODEL, writeSyntheticCheckpoint } from "../../parity/synthetic-checkpoint.js";

const binding = loadNativeBinding();
const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-malformed-"));
writeSyntheticCheckpoint(folder, TINY_MODEL, 1);
const OPTIONS: NativeEngineOptions = {
  ...engineOptions(folder),
  config: {
    ...engineOptions(folder).config,
    ropeScaling: {
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextTokens: 64,
    },
  },
};
const engine = binding.openEngine(OPTIONS, () => {});
afterAll(() => {
  engine.close();
  rmSync(folder, { recursive: true });
});

const REQUEST: NativeRequest = {
  id: 1,
  promptTokenIds: Uint32Array.of(1),
  completions: 1,
  maxNewTokens: 1,
  sampling: {
    ...GREEDY,
    logitBiasTokenIds: Uint32Array.of(1),
    logitBiasValues: Float32Array.of(1),
  },
  steering: [
    {
      vector: 1,
      kind: "add",
      coefficient: 1,
      clampMin: 0,
      clampMax: 0,
      layers: Int32Array.of(0),
      preserveNorm: false,
      positionBegin: 0,
      positionEnd: 1,
      gate: {
        vector: 1,
        layer: 0,
        metric: "dot",
        comparator: "above",
        threshold: 0,
        scope: "each_token",
        promptTokens: 0,
      },
      afterText: Uint8Array.of(65),
    },
  ],
  capture: {
    sites: ["resid_post"],
    layers: Int32Array.of(0),
    positionBegin: 0,
    positionEnd: 1,
    mean: false,
    beforeSteering: false,
    dtype: "f32",
    lensTopK: 0,
    afterText: Uint8Array.of(65),
  },
  promptLogprobsFrom: 1,
  credits: 1,
  captureCreditBytes: 1024,
  proofPromptTokens: 0,
  cacheSalt: "",
  deadlineNs: 0n,
  adapter: 0,
  probes: [{ vector: 1, layer: 0, read: "each_token", afterText: new Uint8Array() }],
  compareUnsteered: false,
};

const VECTOR: NativeVector = {
  handle: 1,
  digest: new Uint8Array(32),
  layers: Int32Array.of(0),
  rows: new Float32Array(TINY_MODEL.hiddenSize),
};

const ADAPTER: NativeAdapter = {
  handle: 1,
  digest: new Uint8Array(32),
  paths: ["adapter.safetensors"],
  targets: [
    {
      layer: 0,
      module: "q",
      rank: 1,
      scale: 1,
      a: tensor("a", [1, TINY_MODEL.hiddenSize]),
      b: tensor("b", [TINY_MODEL.hiddenSize, 1]),
    },
  ],
};

function tensor(name: string, shape: number[]): NativeTensorLocation {
  return { name, dtype: "f32", shape, file: 0, offsetBytes: 0, sizeBytes: 4 };
}

type Key = string | number;

/** Every field of the seam's objects, at any depth; elements of arrays too. */
function* fieldsOf(value: unknown, at: Key[] = []): Generator<Key[]> {
  if (at.length > 0) yield at;
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return;
  for (const [key, inner] of Object.entries(value)) {
    yield* fieldsOf(inner, [...at, Array.isArray(value) ? Number(key) : key]);
  }
}

function withField(value: unknown, at: Key[], replacement: unknown): unknown {
  const [key, ...rest] = at;
  if (key === undefined) return replacement;
  const copy: Record<Key, unknown> = Array.isArray(value) ? [...value] : Object.assign({}, value);
  copy[key] = withField(copy[key], rest, replacement);
  return copy;
}

function fieldAt(value: unknown, at: Key[]): unknown {
  return at.reduce<unknown>((inner, key) => Object(inner)[key], value);
}

const nameOf = (root: string, at: Key[]) =>
  at.reduce<string>((path, key) => path + (typeof key === "number" ? `[${key}]` : `.${key}`), root);

/** Of no type that any field has, and others that are wrong for all but one type. */
const WRONG: unknown[] = [
  undefined,
  Symbol("x"),
  () => 1,
  new Date(),
  Number.NaN,
  Number.NEGATIVE_INFINITY,
  1e300,
  "no such word",
  new BigUint64Array(1),
  -(2n ** 70n),
  true,
  null,
  [],
  {},
];

/** Fields that take the value, by their kind. */
function isAllowed(field: string, original: unknown, wrong: unknown): boolean {
  if (wrong === null)
    return /\.(capture|promptLogprobsFrom|ropeScaling|mergedAdapter|gate)$/.test(field);
  if (typeof wrong === "string") return typeof original === "string" && !isWord(field);
  if (typeof wrong === "boolean") return typeof original === "boolean";
  if (wrong === Number.NEGATIVE_INFINITY) return /\.clampM(in|ax)$/.test(field);
  if (wrong === 1e300) return isDouble(field) || /\.clampM(in|ax)$/.test(field);
  if (Array.isArray(wrong)) return Array.isArray(original);
  return false;
}

const isWord = (field: string) =>
  /\.(dtype|weightFormat|kvDtype|kind|module|metric|comparator|scope|read)$|\.sites\[\d+\]$/.test(
    field,
  );
const isDouble = (field: string) =>
  /\.(ropeTheta|ropeLinearFactor|factor|\w+FrequencyFactor|originalContextTokens)$/.test(field);

const TARGETS: [string, unknown, (value: unknown) => unknown][] = [
  [
    "options",
    { ...OPTIONS, mergedAdapter: ADAPTER },
    (value) => binding.openEngine(value as NativeEngineOptions, () => {}),
  ],
  ["request", REQUEST, (value) => engine.submit(value as NativeRequest)],
  ["vector", VECTOR, (value) => engine.putVector(value as NativeVector)],
  ["adapter", ADAPTER, (value) => engine.putAdapter(value as NativeAdapter)],
];

describe.each(TARGETS)("%s", (root, valid, call) => {
  // Of the many tensors, the first stands for all.
  const fields = [...fieldsOf(valid)].filter((at) => !(at[1] === "tensors" && Number(at[2]) > 0));

  it.each(fields.map((at) => [nameOf(root, at), at] as const))("%s", (name, at) => {
    const original = fieldAt(valid, at);
    for (const wrong of WRONG) {
      if (isAllowed(name, original, wrong)) continue;
      let thrown: unknown = "nothing";
      try {
        call(withField(valid, at, wrong));
      } catch (error) {
        thrown = error;
      }
      expect(thrown, `${name} = ${String(wrong)}`).toBeInstanceOf(TypeError);
      // An object in the place of another is missed by its first field.
      expect(String(thrown)).toContain(name);
    }
  });

  it.each([undefined, null, 1, "x", Symbol("x"), () => {}])("that is %s", (wrong) => {
    expect(() => call(wrong)).toThrow(TypeError);
  });
});

describe("the binding", () => {
  it("refuses another version of itself", () => {
    const other = { ...OPTIONS, apiVersion: NATIVE_API_VERSION + 1 };
    expect(() => binding.openEngine(other, () => {})).toThrow(
      /apiVersion is 4, the addon speaks 3/,
    );
  });

  it.each([undefined, null, {}, "x"])("refuses %s as a handler", (handler) => {
    expect(() => binding.openEngine(OPTIONS, handler as never)).toThrow(
      new TypeError("onEvents: expected a function"),
    );
  });

  it("passes on what a getter throws", () => {
    const trap = Object.defineProperty({ ...REQUEST }, "credits", {
      get: () => {
        throw new RangeError("trap");
      },
    });
    expect(() => engine.submit(trap)).toThrow(new RangeError("trap"));
  });

  it("reads a detached array as empty and a shared one as it is", () => {
    const detached = Uint32Array.of(1, 2, 3);
    structuredClone(detached, { transfer: [detached.buffer] });
    expect(() => engine.submit({ ...REQUEST, id: 50, promptTokenIds: detached })).not.toThrow();
    const shared = new Uint32Array(new SharedArrayBuffer(8));
    expect(() => engine.submit({ ...REQUEST, id: 51, promptTokenIds: shared })).not.toThrow();
  });

  it.each<[string, (target: NativeEngine) => unknown]>([
    ["cancel", (target) => target.cancel("1" as never, -1)],
    ["cancel", (target) => target.cancel(-1, -1)],
    ["cancel", (target) => target.cancel(1, 0.5)],
    ["cancel", (target) => (target.cancel as () => void)()],
    ["grant", (target) => target.grant(1, -1, 0)],
    ["grant", (target) => target.grant(1, 2 ** 32, 0)],
    ["grant", (target) => target.grant(2 ** 53, 1, 0)],
    ["grant", (target) => target.grant(1, 1, -1)],
    ["grant", (target) => target.grant(1, 1, 2 ** 53)],
    ["dropVector", (target) => target.dropVector(Number.NaN)],
    ["dropAdapter", (target) => target.dropAdapter(-1)],
    ["dropVector", (target) => target.dropVector(1n as never)],
  ])("refuses numbers out of range: %s", (_method, call) => {
    expect(() => call(engine)).toThrow(TypeError);
  });

  it("refuses to work on an object that is no engine", () => {
    const submit = engine.submit as (this: unknown, request: NativeRequest) => void;
    for (const stranger of [undefined, {}, [], Object.create(engine), binding]) {
      expect(() => submit.call(stranger, REQUEST)).toThrow();
    }
  });
});
