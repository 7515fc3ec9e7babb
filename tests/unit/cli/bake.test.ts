import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FoldedVector, foldBiases, reasonNotFoldable } from "../../../src/cli/bake/fold.js";
import { openSource } from "../../../src/cli/bake/source.js";
import { writeBaked } from "../../../src/cli/bake/write.js";
import { parseSafetensors, type TensorSpan } from "../../../src/cli/files/safetensors.js";
import { vectorDigest } from "../../../src/cli/files/vector-digest.js";
import { bytesToFloats, floatsToBytes, type Steering } from "../../../src/client/client.js";
import { openCheckpoint } from "../../../src/model/checkpoint.js";
import { digestOf } from "../../../src/vectors/digest.js";
import { TINY_MODEL, writeSyntheticCheckpoint } from "../../parity/synthetic-checkpoint.js";

const { hiddenSize } = TINY_MODEL;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "bake-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

let made = 0;
function checkpoint(change: Partial<typeof TINY_MODEL> = {}): string {
  const target = path.join(folder, `source-${++made}`);
  writeSyntheticCheckpoint(target, { ...TINY_MODEL, ...change }, 7);
  return target;
}

const bake = async (
  from: string,
  biases: ReadonlyMap<number, Float32Array>,
  signal?: AbortSignal,
) => {
  const out = `${from}-baked`;
  const { signal: never } = new AbortController();
  await writeBaked(openSource(from), biases, out, { a: 1 }, () => {}, signal ?? never);
  return out;
};

/** Every tensor of a folder with its shard and bytes. */
function tensorsOf(
  checkpointFolder: string,
): Map<string, TensorSpan & { shard: string; data: Buffer }> {
  const shards = readdirSync(checkpointFolder).filter((name) => name.endsWith(".safetensors"));
  const all = shards.flatMap((shard) => {
    const bytes = readFileSync(path.join(checkpointFolder, shard));
    const read = (offset: number, size: number) => bytes.subarray(offset, offset + size);
    return parseSafetensors(read, bytes.length, shard).tensors.map((tensor) => {
      const data = read(tensor.offset, tensor.sizeBytes);
      return [tensor.name, { ...tensor, shard, data }] as const;
    });
  });
  return new Map(all);
}

const bias = (value: number) => new Float32Array(hiddenSize).fill(value);
const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));

describe("what can be folded into a bias", () => {
  const rows = [{ layer: 1, data: floatsToBytes([0.1, 2]) }];
  const vector = (steering: Steering): FoldedVector => ({ name: "v", steering, rows });

  test.each<[Steering, RegExp | null]>([
    [{}, null],
    [{ operation: "OPERATION_ADD", positions: { all: {} } }, null],
    [{ operation: "OPERATION_PROJECT_OUT" }, /PROJECT_OUT depends on each token's own/],
    [{ operation: "OPERATION_CLAMP" }, /CLAMP depends/],
    [{ operation: "OPERATION_SCALE_COMPONENT" }, /SCALE_COMPONENT depends/],
    [{ gate: { vectorId: "g" } }, /a gate decides/],
    [{ preserveNorm: true }, /preserve-norm depends/],
    [{ positions: { prompt: {} } }, /some tokens only/],
    [{ positions: { range: { start: 0 } } }, /some tokens only/],
    [{ positions: { all: {}, afterText: "x" } }, /after_text acts on some/],
  ])("%j", (steering, reason) => {
    if (reason === null) expect(reasonNotFoldable(steering)).toBeNull();
    else {
      expect(reasonNotFoldable(steering)).toMatch(reason);
      expect(() => foldBiases([vector(steering)], 2, 2)).toThrow(/^v: cannot be baked: /);
    }
  });

  test("vectors on one block add up, rounded to float32 once", () => {
    const biases = foldBiases([vector({ coefficient: 3 }), vector({ coefficient: -0.5 })], 2, 2);
    const [first, second] = [Math.fround(0.1), 2];
    expect([...biases]).toEqual([[1, Float32Array.of(first * 3 + first * -0.5, second * 2.5)]]);
  });

  test("a vector of another model is refused", () => {
    expect(() => foldBiases([vector({})], 2, 1)).toThrow("holds layer 1; the checkpoint has 1");
    expect(() => foldBiases([vector({})], 3, 2)).toThrow(
      "has 2 values; the checkpoint's width is 3",
    );
    expect(() => foldBiases([vector({ coefficient: 3e38 })], 2, 2)).toThrow("is not finite");
  });

  test("the digest is the registry's", () => {
    const digest = digestOf({
      hiddenSize: 2,
      layers: Int32Array.of(1),
      rows: Float32Array.of(0.1, 2),
    });
    expect(vectorDigest(rows)).toBe(digest);
  });
});

describe("a baked checkpoint", () => {
  test("has the source's tensors byte for byte, in the source's shards, and new biases", async () => {
    const source = checkpoint({ shards: 3, layers: 3 });
    const out = await bake(source, new Map([[1, bias(0.3)]]));
    const before = tensorsOf(source);
    const after = tensorsOf(out);
    for (const [name, { shard, type, data }] of before) {
      const copy = after.get(name);
      expect({ shard: copy?.shard, type: copy?.type }).toEqual({ shard, type });
      expect(copy?.data.equals(data), name).toBe(true);
    }
    const added = [...after.keys()].filter((name) => !before.has(name));
    expect(added).toHaveLength(3 * 3);
    for (const name of added) {
      const block = name.split(".")[2];
      const values = bytesToFloats(after.get(name)?.data ?? Buffer.alloc(0));
      const steered = name === "model.layers.1.mlp.down_proj.bias";
      expect([...new Set(values)], name).toEqual([steered ? Math.fround(0.3) : 0]);
      expect(after.get(name)?.type).toBe("F32");
      const down = before.get(`model.layers.${block}.mlp.down_proj.weight`);
      expect(after.get(name)?.shard).toBe(down?.shard);
    }
    const index = json(path.join(out, "model.safetensors.index.json"));
    const total = [...after.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    expect(index.metadata.total_size).toBe(total);
    expect(index.weight_map).toEqual(
      Object.fromEntries([...after.values()].map(({ name, shard }) => [name, shard])),
    );
    // The service's own reader takes it.
    expect(openCheckpoint(out).config.mlpBias).toBe(true);
  });

  test("keeps config.json but for mlp_bias, the tokenizer and the licence, not the card", async () => {
    const source = checkpoint();
    for (const name of ["tokenizer.json", "chat_template.jinja", "LICENSE.txt", "README.md"]) {
      writeFileSync(path.join(source, name), `{"name": "${name}"}`);
    }
    const out = await bake(source, new Map([[0, bias(1)]]));
    expect(json(path.join(out, "config.json"))).toEqual({
      ...json(path.join(source, "config.json")),
      mlp_bias: true,
    });
    expect(readdirSync(out).sort()).toEqual([
      "LICENSE.txt",
      "chat_template.jinja",
      "config.json",
      "model.safetensors",
      "steering.json",
      "tokenizer.json",
    ]);
    expect(json(path.join(out, "steering.json"))).toEqual({ a: 1 });
  });

  test("adds to biases that are there", async () => {
    const source = checkpoint({ mlpBias: true });
    const out = await bake(source, new Map([[0, bias(0.3)]]));
    const name = "model.layers.0.mlp.down_proj.bias";
    // bfloat16 is the upper half of float32.
    const stored = tensorsOf(source).get(name)?.data ?? Buffer.alloc(0);
    const before = Array.from({ length: hiddenSize }, (_, i) => {
      const word = Buffer.alloc(4);
      stored.copy(word, 2, i * 2, i * 2 + 2);
      return word.readFloatLE();
    });
    const after = tensorsOf(out);
    expect([...bytesToFloats(after.get(name)?.data ?? Buffer.alloc(0))]).toEqual(
      before.map((value) => Math.fround(value + Math.fround(0.3))),
    );
    expect(after.size).toBe(tensorsOf(source).size);
    expect(after.get("model.layers.1.mlp.down_proj.bias")?.type).toBe("BF16");
  });

  test("appears whole or not at all, and never in a folder that holds something", async () => {
    const source = checkpoint();
    const aborted = AbortSignal.abort();
    await expect(bake(source, new Map(), aborted)).rejects.toThrow("interrupted");
    expect(existsSync(`${source}-baked`)).toBe(false);
    expect(existsSync(`${source}-baked.partial`)).toBe(false);
    mkdirSync(`${source}-baked`);
    await bake(source, new Map());
    await expect(bake(source, new Map())).rejects.toThrow("exists and is not empty");
  });

  test("is refused for what is no LlamaForCausalLM, or lacks tensors", () => {
    const file = path.join(checkpoint(), "config.json");
    const config = json(file);
    writeFileSync(file, JSON.stringify({ ...config, architectures: ["GPT2LMHeadModel"] }));
    expect(() => openSource(path.dirname(file))).toThrow("is no LlamaForCausalLM");
    writeFileSync(file, JSON.stringify({ ...config, num_hidden_layers: 3 }));
    expect(() => openSource(path.dirname(file))).toThrow("model.layers.2.mlp.down_proj.weight");
    expect(() => openSource("/nonexistent")).toThrow("/nonexistent/config.json: cannot be read");
  });
});
