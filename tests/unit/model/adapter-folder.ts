/** Adapters of a small model in the layout of PEFT. */
import type { NativeLlamaConfig } from "../../../src/native/binding.js";
import { layOut, safetensors } from "./checkpoint-folder.js";

export const MODEL: NativeLlamaConfig = {
  hiddenSize: 8,
  intermediateSize: 12,
  layers: 2,
  queryHeads: 4,
  kvHeads: 2,
  headSize: 4,
  vocabSize: 32,
  contextTokens: 64,
  normEpsilon: 1e-5,
  ropeTheta: 1e4,
  ropeScaling: null,
  ropeLinearFactor: 1,
  tiedEmbeddings: true,
  attentionBias: false,
  mlpBias: false,
};

export const PEFT = {
  peft_type: "LORA",
  task_type: "CAUSAL_LM",
  base_model_name_or_path: "some/model",
  bias: "none",
  r: 2,
  lora_alpha: 4,
  lora_dropout: 0.1,
  target_modules: ["q_proj", "down_proj"],
  modules_to_save: null,
  use_dora: false,
  use_rslora: false,
  init_lora_weights: true,
  loftq_config: {},
  runtime_config: { ephemeral_gpu_offload: false },
  rank_pattern: {},
  alpha_pattern: {},
};

type Shapes = Record<string, [dtype: string, shape: number[]]>;

export const nameOf = (layer: number, module: string, factor: "A" | "B") =>
  `base_model.model.model.layers.${layer}.${module}.lora_${factor}.weight`;

/** Factors of one module in both layers. */
export function factors(
  module: string,
  inputs: number,
  outputs: number,
  rank = 2,
  dtype = "F32",
  layers = [0, 1],
): Shapes {
  return Object.fromEntries(
    layers.flatMap((layer): [string, [string, number[]]][] => [
      [nameOf(layer, module, "A"), [dtype, [rank, inputs]]],
      [nameOf(layer, module, "B"), [dtype, [outputs, rank]]],
    ]),
  );
}

export const Q_AND_DOWN: Shapes = {
  ...factors("self_attn.q_proj", 8, 16),
  ...factors("mlp.down_proj", 12, 8, 2, "BF16"),
};

/** Files of an adapter folder. */
export function adapterFiles(config: object = {}, shapes: Shapes = Q_AND_DOWN) {
  return {
    "config.json": null,
    "model.safetensors": null,
    "adapter_config.json": { ...PEFT, ...config },
    "adapter_model.safetensors": safetensors(layOut(shapes)),
  };
}
