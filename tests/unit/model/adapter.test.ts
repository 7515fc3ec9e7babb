import { statSync, truncateSync } from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { StartupError } from "../../../src/errors.js";
import { openAdapter } from "../../../src/model/adapter.js";
import { adapterFiles, factors, MODEL, nameOf, Q_AND_DOWN } from "./adapter-folder.js";
import { Folders, layOut, safetensors } from "./checkpoint-folder.js";

const folders = new Folders();
afterAll(() => folders.remove());

const openFiles = (config: object = {}, shapes = Q_AND_DOWN) =>
  openAdapter(folders.make(adapterFiles(config, shapes)), MODEL);

describe("an adapter", () => {
  test("is read with its factors, ranks and scales", async () => {
    const adapter = await openFiles();
    expect(adapter.rank).toBe(2);
    expect(adapter.modules).toEqual(["q", "down"]);
    expect(adapter.digest).toBe(`sha256:${Buffer.from(adapter.native.digest).toString("hex")}`);
    expect(adapter.native.paths).toEqual([path.join(adapter.folder, "adapter_model.safetensors")]);
    expect(adapter.native.targets.map(({ layer, module }) => `${layer} ${module}`)).toEqual([
      "0 q",
      "0 down",
      "1 q",
      "1 down",
    ]);
    const [first] = adapter.native.targets;
    expect(first).toMatchObject({
      rank: 2,
      scale: 2,
      a: { name: nameOf(0, "self_attn.q_proj", "A"), dtype: "f32", shape: [2, 8], sizeBytes: 64 },
      b: { name: nameOf(0, "self_attn.q_proj", "B"), dtype: "f32", shape: [16, 2], file: 0 },
    });
  });

  test("may change every projection", async () => {
    const shapes = {
      ...Q_AND_DOWN,
      ...factors("self_attn.k_proj", 8, 8),
      ...factors("self_attn.v_proj", 8, 8),
      ...factors("self_attn.o_proj", 16, 8),
      ...factors("mlp.gate_proj", 8, 12),
      ...factors("mlp.up_proj", 8, 12),
    };
    const { modules } = await openFiles({ target_modules: "all-linear" }, shapes);
    expect(modules).toEqual(["q", "k", "v", "o", "gate", "up", "down"]);
  });

  test("has the scale of rsLoRA", async () => {
    const { native } = await openFiles({ use_rslora: true });
    expect(native.targets[0]?.scale).toBe(4 / Math.sqrt(2));
  });

  test("has ranks and alphas by pattern, the first that matches the end of a name", async () => {
    const shapes = { ...factors("self_attn.q_proj", 8, 16, 3), ...factors("mlp.down_proj", 12, 8) };
    const { native, rank } = await openFiles(
      {
        rank_pattern: { q_proj: 3, "self_attn.q_proj": 1 },
        alpha_pattern: { "^model.layers.1.mlp.down_proj": 6, "layers\\.0\\..*_proj": 9, proj: 1 },
      },
      shapes,
    );
    expect(rank).toBe(3);
    expect(native.targets.map(({ rank: r, scale }) => [r, scale])).toEqual([
      [3, 3],
      [2, 4.5],
      [3, 4 / 3],
      [2, 3],
    ]);
  });

  test("may leave layers out, by number or by an expression that the tensors answer", async () => {
    const shapes = factors("self_attn.q_proj", 8, 16, 2, "F16", [1]);
    for (const config of [
      { target_modules: ["q_proj"], layers_to_transform: [1] },
      { target_modules: ["model.layers.1.self_attn.q_proj"] },
      { target_modules: ["q_proj"], exclude_modules: ["layers.0.self_attn.q_proj"] },
      { target_modules: ".*1.*q_proj" },
    ]) {
      const { native } = await openFiles(config, shapes);
      expect(native.targets.map(({ layer }) => layer)).toEqual([1]);
    }
  });

  test("has a digest of its content, not of its file's layout", async () => {
    const digest = async (...args: Parameters<typeof openFiles>) =>
      (await openFiles(...args)).digest;
    const first = await digest();
    expect(await digest({ lora_dropout: 0 })).toBe(first);
    const padded = { ...adapterFiles() };
    const header = JSON.stringify(layOut(Q_AND_DOWN));
    const data = safetensors(layOut(Q_AND_DOWN)).subarray(8 + header.length);
    const spaced = Buffer.concat([safetensors(`${header}   `), data]);
    const folder = folders.make({ ...padded, "adapter_model.safetensors": spaced });
    expect((await openAdapter(folder, MODEL)).digest).toBe(first);
    expect(await digest({ lora_alpha: 5 })).not.toBe(first);
    spaced[spaced.length - 1] = (spaced.at(-1) ?? 0) ^ 1;
    const changed = folders.make({ ...padded, "adapter_model.safetensors": spaced });
    expect((await openAdapter(changed, MODEL)).digest).not.toBe(first);
  });
});

describe("adapter_config.json is refused", () => {
  test.each<[string, object, RegExp]>([
    ["another kind", { peft_type: "IA3" }, /peft_type: "IA3" is not supported; "LORA" is/],
    ["no kind", { peft_type: undefined }, /peft_type: null/],
    ["biases", { bias: "lora_only" }, /bias: "lora_only" is not supported; "none" is/],
    ["LoRA biases", { lora_bias: true }, /lora_bias: true is not supported/],
    ["DoRA", { use_dora: true }, /use_dora: DoRA is not supported/],
    ["whole modules", { modules_to_save: ["lm_head"] }, /modules_to_save: whole modules/],
    ["a variant yet unknown", { use_zora: true }, /use_zora: true is not supported/],
    ["its settings", { arrow_config: { top_k: 2 } }, /arrow_config: .* is not supported/],
    ["activated LoRA", { alora_invocation_tokens: [1] }, /alora_invocation_tokens: \[1\]/],
    [
      "a changed base",
      { init_lora_weights: "pissa" },
      /init_lora_weights: "pissa" changes the base/,
    ],
    ["no rank", { r: undefined }, /: r: null is not a rank from 1 to 4096/],
    ["a rank of 0", { r: 0 }, /: r: 0 is not a rank/],
    ["a broken rank", { r: 1.5 }, /: r: 1.5 is not a rank/],
    ["no alpha", { lora_alpha: "8" }, /lora_alpha: "8" is not a number/],
    ["a huge alpha", { lora_alpha: 1e300 }, /lora_alpha: 1e\+300 is not a number/],
    ["a switch that is none", { use_rslora: 1 }, /use_rslora: is not true or false/],
    ["patterns that are none", { rank_pattern: [8] }, /rank_pattern: is not an object/],
    ["a pattern's rank", { rank_pattern: { q_proj: -1 } }, /rank_pattern\["q_proj"\]: -1 is not/],
    [
      "a broken pattern",
      { alpha_pattern: { "(q": 1 } },
      /alpha_pattern\["\(q"\]: is not a regular/,
    ],
    ["a slow pattern", { alpha_pattern: { "(.+)+!": 1 } }, /repeats more than is supported/],
    ["no targets", { target_modules: undefined }, /target_modules: is not a list/],
    ["targets that are numbers", { target_modules: [1] }, /target_modules: is not a list/],
    ["layers that are none", { layers_to_transform: ["x"] }, /layers_to_transform: is not a list/],
  ])("with %s", async (_, config, message) => {
    const opened = openFiles(config);
    await expect(opened).rejects.toThrow(StartupError);
    await expect(opened).rejects.toThrow(/adapter_config\.json: /);
    await expect(opened).rejects.toThrow(message);
  });
});

describe("adapter_model.safetensors is refused", () => {
  const q = nameOf(0, "self_attn.q_proj", "A");
  test.each<[string, typeof Q_AND_DOWN, RegExp]>([
    [
      "a missing module",
      factors("self_attn.q_proj", 8, 16),
      /0\.mlp\.down_proj\.lora_A\.weight is missing/,
    ],
    [
      "a missing layer",
      { ...factors("self_attn.q_proj", 8, 16, 2, "F32", [0]), ...factors("mlp.down_proj", 12, 8) },
      /layers\.1\.self_attn\.q_proj\.lora_A\.weight is missing/,
    ],
    [
      "a lone A",
      Object.fromEntries(
        Object.entries(Q_AND_DOWN).filter(([name]) => name !== q.replace("_A", "_B")),
      ),
      /lora_B\.weight is missing/,
    ],
    [
      "a module that is not named",
      { ...Q_AND_DOWN, ...factors("self_attn.k_proj", 8, 8) },
      /self_attn\.k_proj\.lora_A\.weight is not a LoRA factor/,
    ],
    [
      "a layer beyond the model",
      { ...Q_AND_DOWN, ...factors("self_attn.q_proj", 8, 16, 2, "F32", [2]) },
      /layers\.2\.self_attn\.q_proj\.lora_A\.weight is not/,
    ],
    [
      "an unembedding",
      { ...Q_AND_DOWN, "base_model.model.lm_head.lora_A.weight": ["F32", [2, 8]] },
      /lm_head\.lora_A\.weight is not/,
    ],
    [
      "a magnitude of DoRA",
      {
        ...Q_AND_DOWN,
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": ["F32", [16]],
      },
      /lora_magnitude_vector is not/,
    ],
    [
      "another rank",
      { ...Q_AND_DOWN, ...factors("self_attn.q_proj", 8, 16, 3) },
      /lora_A\.weight has shape \[3,8\]; .* ask for \[2,8\]/,
    ],
    [
      "another width",
      { ...Q_AND_DOWN, ...factors("self_attn.q_proj", 4, 16) },
      /has shape \[2,4\]; .* ask for \[2,8\]/,
    ],
    ["a factor turned around", { ...Q_AND_DOWN, [q]: ["F32", [8, 2]] }, /has shape \[8,2\]/],
    ["a flat factor", { ...Q_AND_DOWN, [q]: ["F32", [16]] }, /has shape \[16\]/],
    ["another type", { ...Q_AND_DOWN, [q]: ["F64", [2, 8]] }, /dtype "F64" is not supported/],
    ["nothing", {}, /lora_A\.weight is missing/],
  ])("with %s", async (_, shapes, message) => {
    const opened = openFiles({}, shapes);
    await expect(opened).rejects.toThrow(StartupError);
    await expect(opened).rejects.toThrow(/adapter_model\.safetensors: /);
    await expect(opened).rejects.toThrow(message);
  });

  test("when it is cut short", async () => {
    const folder = folders.make(adapterFiles());
    const file = path.join(folder, "adapter_model.safetensors");
    truncateSync(file, statSync(file).size - 1);
    await expect(openAdapter(folder, MODEL)).rejects.toThrow(/truncated/);
  });

  test("when it is not there", async () => {
    const none = { ...adapterFiles(), "adapter_model.safetensors": null };
    await expect(openAdapter(folders.make(none), MODEL)).rejects.toThrow(/cannot be opened/);
    const pickled = folders.make({ ...none, "adapter_model.bin": "x" });
    await expect(openAdapter(pickled, MODEL)).rejects.toThrow(/convert them to safetensors/);
    await expect(openAdapter(path.join(pickled, "none"), MODEL)).rejects.toThrow(/no such folder/);
  });

  test("when an expression's tensors are none", async () => {
    await expect(openFiles({ target_modules: "x" }, {})).rejects.toThrow(/changes no projection/);
  });
});
