/** Requests whose bytes are no message. */
import { describe, expect, it } from "vitest";
import { loadContract } from "../../../src/rpc/contract.js";
import { MalformedRequest } from "../../../src/rpc/strict-reader.js";

const { services, methods } = loadContract();
const definition = services.get("llamasteer.v1.InferenceService")?.["Generate"];
if (!definition) throw new Error("the contract has no Generate");
const decode = (bytes: Uint8Array) => definition.requestDeserialize(Buffer.from(bytes));
const prompt = (utf8: number[]) => Uint8Array.of(0x0a, utf8.length, ...utf8);

describe("strings", () => {
  it.each(["plain", "ünïcödé", "🦙", "\uFEFFwith a mark", "\uFFFD", "nul\0inside"])(
    "%j pass",
    (text) => {
      const bytes = prompt([...Buffer.from(text)]);
      expect(decode(bytes)).toMatchObject({ prompt: text });
    },
  );

  it.each([
    ["a high surrogate", [0xed, 0xa0, 0x80]],
    ["a low surrogate", [0xed, 0xb0, 0x80]],
    ["a surrogate pair as two characters", [0xed, 0xa0, 0xbd, 0xed, 0xb0, 0x80]],
    ["a cut character", [0xf0, 0x9f, 0xa6]],
    ["overlong", [0xc0, 0x80]],
    ["beyond Unicode", [0xf4, 0x90, 0x80, 0x80]],
  ])("%s is refused", (_name, utf8) => {
    expect(decode(prompt(utf8))).toBeInstanceOf(MalformedRequest);
  });
});

it("cut messages are refused, whatever is cut", () => {
  const whole = definition.requestSerialize({
    prompt: "hello",
    steering: [{ vectorId: "mood", layers: [1, 2], coefficient: 2 }],
    sampling: { stop: ["a"], logitBias: { 1: 2 } },
  });
  expect(decode(whole)).toMatchObject({ prompt: "hello" });
  for (let size = 1; size < whole.length; size++) {
    const decoded = decode(whole.subarray(0, size));
    // A cut between two fields is a shorter message.
    if (decoded instanceof MalformedRequest) expect(decoded.reason).not.toMatch(/index|offset/);
  }
  expect(decode(whole.subarray(0, whole.length - 1))).toBeInstanceOf(MalformedRequest);
});

it("labels called __proto__ stay labels", () => {
  const create = services.get("llamasteer.v1.VectorService")?.["CreateVector"];
  const key = Buffer.from("__proto__");
  const entry = Buffer.from([0x0a, key.length, ...key, 0x12, 1, 0x78]);
  const decoded = create?.requestDeserialize(Buffer.from([0x1a, entry.length, ...entry]));
  expect(decoded).not.toBeInstanceOf(MalformedRequest);
  expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
});

it("the contract has every method of this version", () => {
  expect(methods).toHaveLength(23);
});
