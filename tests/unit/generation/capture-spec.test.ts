/** What is captured, and what it costs. */
import { describe, expect, it } from "vitest";
import {
  type CaptureSpec,
  captureTokenBytes,
  captureTotalBytes,
  resolveCapture,
  splitRows,
} from "../../../src/generation/capture-spec.js";
import type { TokenBytes } from "../../../src/model/token-bytes.js";
import type { NativeActivationEvent } from "../../../src/native/binding.js";

/** Token t is the letter a + t. */
const LETTERS: TokenBytes = {
  tokenBytes: Uint8Array.from({ length: 26 }, (_, token) => 97 + token),
  tokenOffsets: Uint32Array.from({ length: 27 }, (_, token) => token),
};
const MODEL = { layers: 3, hiddenSize: 8 };
const LOADED = { config: MODEL, tokenBytes: LETTERS };
const SEQUENCE = { name: "prompt", promptTokens: 10, lastPosition: 14, tokens: null };
const SPEC: CaptureSpec = {
  sites: ["resid_post"],
  layers: [],
  tokens: { kind: "all" },
  mean: false,
  beforeSteering: false,
  dtype: "f32",
  lensTopK: 0,
};

describe("a token's bytes", () => {
  it.each<[string, Partial<CaptureSpec>, number]>([
    ["all layers of a site", {}, 3 * 8 * 4],
    ["two sites of named layers", { sites: ["resid_post", "mlp_out"], layers: [2, 0] }, 128],
    ["a layer named twice counts once", { layers: [1, 1] }, 32],
    ["the final norm is one row", { sites: ["final_norm"] }, 32],
    ["the final norm beside a site", { sites: ["final_norm", "attn_out"] }, 128],
    ["the lens counts too", { lensTopK: 5 }, 3 * (32 + 5 * 64)],
    ["half precision", { dtype: "f16" }, 48],
  ])("%s", (_name, changes, bytes) => {
    expect(captureTokenBytes({ ...SPEC, ...changes }, MODEL)).toBe(bytes);
  });

  it("times the tokens are all that is captured; a mean is one", () => {
    const whole = resolveCapture(SPEC, LOADED, SEQUENCE);
    expect(captureTotalBytes(whole, 96)).toBe(15 * 96);
    expect(captureTotalBytes({ ...whole, mean: true }, 96)).toBe(96);
  });
});

describe("positions", () => {
  const resolve = (tokens: CaptureSpec["tokens"], computedEnd: number) => {
    const sequence = { ...SEQUENCE, lastPosition: computedEnd - 1 };
    const capture = resolveCapture({ ...SPEC, tokens }, LOADED, sequence);
    return [capture.positionBegin, capture.positionEnd];
  };

  it("end where nothing is computed any more", () => {
    expect(resolve({ kind: "all" }, 10)).toEqual([0, 10]);
    expect(resolve({ kind: "all" }, 14)).toEqual([0, 14]);
    expect(resolve({ kind: "generated" }, 14)).toEqual([10, 14]);
    expect(resolve({ kind: "range", start: -2, end: null }, 14)).toEqual([8, 14]);
  });

  it("of the last token are the prompt's last, whatever is generated", () => {
    expect(resolve({ kind: "last" }, 10)).toEqual([9, 10]);
    expect(resolve({ kind: "last" }, 14)).toEqual([9, 10]);
  });

  it("that hold no token are refused", () => {
    expect(() => resolve({ kind: "generated" }, 10)).toThrow(/capture\.tokens/);
    expect(() => resolve({ kind: "range", start: 14, end: null }, 14)).toThrow(/capture\.tokens/);
  });
});

describe("a text to wait for", () => {
  const resolve = (text: string, tokens: Uint32Array | null) =>
    resolveCapture({ ...SPEC, tokens: { kind: "after_text", text } }, LOADED, {
      ...SEQUENCE,
      lastPosition: 9,
      tokens,
    });
  const ABC = Uint32Array.from({ length: 10 }, (_, token) => token);

  it("goes to the engine as UTF-8", () => {
    expect(resolve("cd", ABC)).toMatchObject({ positionBegin: 0, positionEnd: 10 });
    expect(resolve("cd", ABC).afterText).toEqual(Uint8Array.of(99, 100));
    expect(resolve("ü", null).afterText).toEqual(Uint8Array.of(0xc3, 0xbc));
    expect(resolveCapture(SPEC, LOADED, SEQUENCE).afterText).toHaveLength(0);
  });

  it("must appear before the last token when nothing is generated", () => {
    expect(() => resolve("x", ABC)).toThrow(/capture\.tokens\.after_text.*prompt/);
    expect(() => resolve("ij", ABC)).toThrow(/capture\.tokens\.after_text.*no token/);
    expect(resolve("x", null).positionEnd).toBe(10);
  });
});

describe("splitRows", () => {
  const rows = 7;
  const event: NativeActivationEvent = {
    type: "activations",
    id: 1,
    site: "resid_post",
    layer: 1,
    positions: Int32Array.from({ length: rows }, (_, row) => 20 + row),
    tokenIds: Uint32Array.from({ length: rows }, (_, row) => 100 + row),
    dtype: "f32",
    rows,
    cols: 2,
    data: Uint8Array.from({ length: rows * 8 }, (_, byte) => byte),
    completion: -1,
    lens: Array.from({ length: rows }, (_, row) => [{ tokenId: row, logprob: -row }]),
  };

  it.each([1, 8, 16, 17, 24, 55, 56, 1000])("parts of at most %i bytes make the whole", (bytes) => {
    const parts = [...splitRows(event, bytes)];
    expect(parts.flatMap(({ positions }) => [...positions])).toEqual([...event.positions]);
    expect(parts.flatMap(({ tokenIds }) => [...tokenIds])).toEqual([...event.tokenIds]);
    expect(parts.flatMap(({ lens }) => lens)).toEqual(event.lens);
    expect(Buffer.concat(parts.map(({ data }) => data))).toEqual(Buffer.from(event.data));
    for (const part of parts) {
      expect(part.data.byteLength).toBe(part.rows * 8);
      expect(part.positions).toHaveLength(part.rows);
      if (part.rows > 1) expect(part.data.byteLength).toBeLessThanOrEqual(bytes);
    }
  });

  it("a mean stays whole: one row, two positions", () => {
    const mean = {
      ...event,
      rows: 1,
      positions: Int32Array.of(0, 9),
      data: new Uint8Array(8),
      lens: [],
    };
    expect([...splitRows(mean, 1)]).toEqual([mean]);
  });
});
