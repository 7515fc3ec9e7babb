/** Whatever is wrong with a folder, the message says what and where; nothing is guessed. */
import { mkdirSync } from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { StartupError } from "../../../src/errors.js";
import { openCheckpoint } from "../../../src/model/checkpoint.js";
import { CONFIG, Folders, layOut, safetensors, TENSORS } from "./checkpoint-folder.js";

const folders = new Folders();
afterAll(() => folders.remove());

function messageOf(folder: string): string {
  try {
    openCheckpoint(folder);
  } catch (error) {
    expect(error).toBeInstanceOf(StartupError);
    return error instanceof Error ? error.message : "";
  }
  throw new Error("the checkpoint was accepted");
}

describe("config.json is refused", () => {
  test.each<[string, object | string | null, RegExp]>([
    ["when it is missing", null, /config\.json: cannot be read: ENOENT/],
    ["when it is empty", "", /config\.json: not JSON/],
    ["when it is cut short", '{"hidden_size": 64', /config\.json: not JSON/],
    ["when it is a list", "[]", /config\.json: not a JSON object/],
    ["when it is null", "null", /config\.json: not a JSON object/],
    ["with a number that JSON has not", '{"hidden_size": NaN}', /config\.json: not JSON/],
  ])("%s", (_, content, message) => {
    expect(messageOf(folders.make({ "config.json": content }))).toMatch(message);
  });

  const llama3 = {
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
  };
  test.each<[string, object, RegExp]>([
    ["another architecture", { architectures: ["MistralForCausalLM"] }, /architectures: .*Mistral/],
    ["no architecture", { architectures: null, model_type: "qwen2" }, /architectures: null/],
    ["an empty list of them", { architectures: [] }, /architectures/],
    ["another activation", { hidden_act: "gelu" }, /hidden_act: "gelu" is not supported/],
    ["quantised weights", { quantization_config: { bits: 4 } }, /quantization_config/],
    ["no hidden size", { hidden_size: undefined }, /hidden_size: is missing/],
    ["a hidden size of 0", { hidden_size: 0 }, /hidden_size: 0 is not an integer from 1/],
    ["a negative one", { hidden_size: -64 }, /hidden_size: -64/],
    ["a broken one", { hidden_size: 64.5 }, /hidden_size: 64.5/],
    ["a huge one", { hidden_size: 1e15 }, /hidden_size: 1000000000000000/],
    ["a textual one", { hidden_size: "64" }, /hidden_size: "64"/],
    ["a boolean one", { hidden_size: true }, /hidden_size: true/],
    ["no layers", { num_hidden_layers: 0 }, /num_hidden_layers: 0/],
    ["too many layers", { num_hidden_layers: 100_000 }, /num_hidden_layers: 100000/],
    ["no vocabulary", { vocab_size: 0 }, /vocab_size: 0/],
    ["no MLP", { intermediate_size: null }, /intermediate_size: is missing/],
    ["no heads", { num_attention_heads: 0 }, /num_attention_heads: 0/],
    [
      "heads that do not divide",
      { num_attention_heads: 6 },
      /num_key_value_heads|num_attention_heads/,
    ],
    [
      "groups that do not divide",
      { num_key_value_heads: 3 },
      /num_key_value_heads: 3 does not divide/,
    ],
    ["an odd head size", { head_dim: 15 }, /head_dim: 15/],
    ["a large head size", { head_dim: 512 }, /head_dim: 512/],
    ["an infinite context", { max_position_embeddings: 1e300 }, /max_position_embeddings/],
    ["a negative epsilon", { rms_norm_eps: -1e-5 }, /rms_norm_eps: -0.00001/],
    ["a textual epsilon", { rms_norm_eps: "1e-5" }, /rms_norm_eps/],
    ["a theta of 0", { rope_theta: 0 }, /rope_theta: 0/],
    ["a textual tie", { tie_word_embeddings: "yes" }, /tie_word_embeddings: "yes" is not true/],
    ["a textual bias", { attention_bias: 1 }, /attention_bias: 1/],
    ["yarn", { rope_scaling: { rope_type: "yarn", factor: 4 } }, /rope_scaling.rope_type: "yarn"/],
    ["dynamic", { rope_scaling: { type: "dynamic", factor: 2 } }, /"dynamic" is not supported/],
    ["longrope", { rope_parameters: { rope_type: "longrope" } }, /rope_parameters.rope_type/],
    ["a rope type of another type", { rope_scaling: { rope_type: 3 } }, /rope_type: 3/],
    ["a rope that is no object", { rope_scaling: "linear" }, /rope_scaling: is not an object/],
    [
      "linear without a factor",
      { rope_scaling: { type: "linear" } },
      /rope_scaling.factor: is miss/,
    ],
    [
      "a factor below 1",
      { rope_scaling: { type: "linear", factor: 0.5 } },
      /rope_scaling.factor: 0.5/,
    ],
    [
      "llama3 without its context",
      { rope_scaling: { ...llama3, original_max_position_embeddings: undefined } },
      /rope_scaling.original_max_position_embeddings: is missing/,
    ],
    [
      "llama3 with crossed factors",
      { rope_scaling: { ...llama3, low_freq_factor: 4 } },
      /high_freq_factor: is not above low_freq_factor/,
    ],
    ["a rope of half the head", { partial_rotary_factor: 0.5 }, /partial_rotary_factor: 0.5/],
    ["an EOS outside the vocabulary", { eos_token_id: 32 }, /eos_token_id 32 is no token id/],
    ["a negative EOS", { eos_token_id: -1 }, /eos_token_id -1/],
    ["a textual EOS", { eos_token_id: ["</s>"] }, /eos_token_id "<\/s>"/],
  ])("with %s", (_, change, message) => {
    const folder = folders.make({ "config.json": { ...CONFIG, ...change } });
    expect(messageOf(folder)).toMatch(message);
    expect(messageOf(folder)).toContain(folder);
  });
});

describe("model.safetensors is refused", () => {
  const one = (change: object) => safetensors({ ...TENSORS, "model.norm.weight": change });
  const norm = { dtype: "F32", shape: [64], data_offsets: [4096, 4352] };
  const duplicate = JSON.stringify(norm);

  test.each<[string, Uint8Array, RegExp]>([
    ["when it is empty", Buffer.alloc(0), /truncated: 0 bytes/],
    ["with half a length", Buffer.alloc(5), /truncated: 5 bytes/],
    ["when the header is cut off", safetensors(TENSORS).subarray(0, 40), /the header claims/],
    [
      "with a header length of 2^64-1",
      Buffer.alloc(64, 0xff),
      /header claims 18446744073709551615/,
    ],
    [
      "with a header of more than 100 MB",
      Buffer.from([1, 225, 245, 5, 0, 0, 0, 0]),
      /header claims/,
    ],
    ["when the header is empty", safetensors(""), /not JSON/],
    ["when the header is no JSON", safetensors("{,}"), /not JSON/],
    ["when the header is no object", safetensors("[1]"), /not a JSON object/],
    ["when the header is not UTF-8", safetensors(Uint8Array.from([0x7b, 0xff, 0x7d])), /not UTF-8/],
    ["when pickled bytes stand there", Buffer.from("\x80\x02}q\x00.PK\x03\x04"), /header claims/],
    ["with a name twice", safetensors(`{"a":${duplicate},"a":${duplicate}}`), /names "a" twice/],
    [
      "with a name twice in other spelling",
      safetensors(`{"a":${duplicate},"\\u0061":${duplicate}}`),
      /names "a" twice/,
    ],
    [
      "with a field twice",
      safetensors(`{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}`),
      /names "dtype" twice/,
    ],
    ["with a tensor that is no object", one(["F32"]), /"model.norm.weight": is not an object/],
    ["with integers", one({ ...norm, dtype: "I32" }), /dtype "I32" is not supported/],
    ["with float8", one({ ...norm, dtype: "F8_E4M3" }), /dtype "F8_E4M3"/],
    ["with a type in small letters", one({ ...norm, dtype: "f32" }), /dtype "f32"/],
    ["with a type of JavaScript", one({ ...norm, dtype: "constructor" }), /dtype "constructor"/],
    ["without a type", one({ ...norm, dtype: undefined }), /dtype undefined/],
    ["without a shape", one({ ...norm, shape: undefined }), /shape undefined/],
    ["with a scalar", one({ ...norm, shape: [] }), /shape \[\]/],
    ["with three dimensions", one({ ...norm, shape: [4, 4, 4] }), /shape \[4,4,4\]/],
    ["with a size of 0", one({ ...norm, shape: [0] }), /shape \[0\]/],
    ["with a negative size", one({ ...norm, shape: [-64] }), /shape \[-64\]/],
    ["with a broken size", one({ ...norm, shape: [63.5] }), /shape \[63.5\]/],
    ["with a size past 2^53", one({ ...norm, shape: [2 ** 60] }), /shape/],
    ["with sizes whose product wraps", one({ ...norm, shape: [2 ** 33, 2 ** 33] }), /takes/],
    ["with one offset", one({ ...norm, data_offsets: [4096] }), /not two byte offsets/],
    ["with three offsets", one({ ...norm, data_offsets: [4096, 4352, 1] }), /not two byte offsets/],
    ["with textual offsets", one({ ...norm, data_offsets: ["0", "4"] }), /not two byte offsets/],
    ["with negative offsets", one({ ...norm, data_offsets: [-256, 0] }), /not two byte offsets/],
    ["with offsets the wrong way", one({ ...norm, data_offsets: [4352, 4096] }), /has -256 bytes/],
    ["with too few bytes", one({ ...norm, shape: [65] }), /has 256 bytes; F32 \[65\] takes 260/],
    [
      "with too many bytes",
      one({ ...norm, dtype: "BF16" }),
      /has 256 bytes; BF16 \[64\] takes 128/,
    ],
    ["with two tensors in one place", one({ ...norm, data_offsets: [0, 256] }), /overlaps/],
    [
      "with a hole",
      one({ dtype: "F32", shape: [32], data_offsets: [4096, 4224] }),
      /belong to none/,
    ],
    ["with a hole in front", safetensors({ a: { ...norm } }), /bytes before tensor "a"/],
    ["with a byte too few", safetensors(TENSORS, -1), /truncated: the tensors end at byte/],
    ["with a byte too many", safetensors(TENSORS, 1), /1 bytes behind the last tensor/],
    [
      "with metadata that are no object",
      safetensors({ ...TENSORS, __metadata__: 1 }),
      /__metadata__/,
    ],
    ["with metadata that are no texts", safetensors({ __metadata__: { a: 1 } }), /__metadata__.a/],
  ])("%s", (_, bytes, message) => {
    const folder = folders.make({ "model.safetensors": bytes });
    expect(messageOf(folder)).toMatch(message);
    expect(messageOf(folder)).toContain(path.join(folder, "model.safetensors"));
  });

  test("when it is a folder", () => {
    const folder = folders.make({ "model.safetensors": null });
    mkdirSync(path.join(folder, "model.safetensors"));
    expect(messageOf(folder)).toMatch(/model\.safetensors: not a file/);
  });
});

describe("a sharded checkpoint is refused", () => {
  const SHARD = "model-00001-of-00001.safetensors";
  const weightMap = Object.fromEntries(Object.keys(TENSORS).map((name) => [name, SHARD]));
  const sharded = (index: object | string, shard: Uint8Array | null = safetensors(TENSORS)) =>
    folders.make({
      "model.safetensors": null,
      "model.safetensors.index.json": index,
      [SHARD]: shard,
    });

  test.each<[string, object | string, RegExp]>([
    ["without a weight map", {}, /weight_map is not an object/],
    ["with a list as its map", { weight_map: [] }, /weight_map is not an object/],
    ["with an empty map", { weight_map: {} }, /0 shards/],
    ["when the index is no JSON", "{", /index\.json: not JSON/],
    [
      "with a path upwards",
      { weight_map: { a: "../x.safetensors" } },
      /"\.\.\/x\.safetensors" is not/,
    ],
    ["with an absolute path", { weight_map: { a: "/etc/x.safetensors" } }, /is not the name/],
    ["with a subfolder", { weight_map: { a: "x/y.safetensors" } }, /is not the name/],
    ["with a backslash", { weight_map: { a: "x\\y.safetensors" } }, /is not the name/],
    ["with a pickle", { weight_map: { a: "pytorch_model.bin" } }, /is not the name/],
    ["with a hidden file", { weight_map: { a: ".x.safetensors" } }, /is not the name/],
    ["with a NUL", { weight_map: { a: "x\0.safetensors" } }, /is not the name/],
    ["with a number", { weight_map: { a: 7 } }, /7 is not the name/],
    [
      "with a tensor of no shard",
      { weight_map: { ...weightMap, more: SHARD } },
      /more is in no shard/,
    ],
    [
      "with a tensor that is not indexed",
      { weight_map: { "lm_head.weight": SHARD } },
      /not as indexed/,
    ],
  ])("%s", (_, index, message) => {
    expect(messageOf(sharded(index))).toMatch(message);
  });

  test("when a shard is missing", () => {
    expect(messageOf(sharded({ weight_map: weightMap }, null))).toMatch(
      /model-00001-of-00001\.safetensors: cannot be opened: ENOENT/,
    );
  });

  test("when a tensor lies in two shards", () => {
    const other = "model-00002-of-00002.safetensors";
    const folder = folders.make({
      "model.safetensors": null,
      "model.safetensors.index.json": {
        weight_map: { ...weightMap, extra: other },
      },
      [SHARD]: safetensors(TENSORS),
      [other]: safetensors(layOut({ extra: ["F32", [4]], "lm_head.weight": ["F16", [32, 64]] })),
    });
    expect(messageOf(folder)).toMatch(/lm_head\.weight lies in .*00002/);
  });
});

describe("a folder is refused", () => {
  test("that does not exist", () => {
    expect(messageOf("/nowhere/at-all")).toBe("/nowhere/at-all: no such folder");
  });

  test("that is a file", () => {
    const folder = folders.make();
    expect(messageOf(path.join(folder, "config.json"))).toMatch(/no such folder/);
  });

  test("without weights", () => {
    expect(messageOf(folders.make({ "model.safetensors": null }))).toMatch(
      /neither model\.safetensors nor model\.safetensors\.index\.json/,
    );
  });

  test("with pickled weights, with the way out", () => {
    const folder = folders.make({ "model.safetensors": null, "pytorch_model.bin": "x" });
    expect(messageOf(folder)).toMatch(/pickled weights run code when loaded; convert them/);
  });

  test("with a generation_config.json that is no JSON", () => {
    expect(messageOf(folders.make({ "generation_config.json": "{" }))).toMatch(
      /generation_config\.json: not JSON/,
    );
  });
});
