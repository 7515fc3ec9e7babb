/** LoRA adapters for the tiny checkpoint, in the layout of PEFT. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { TINY } from "./tiny-checkpoint.js";
import { randomRow } from "./vectors.js";

const RANK = 2;
/** Inputs and outputs of the projections that it adapts. */
const MODULES = { "mlp.down_proj": [160, 64], "self_attn.q_proj": [64, 128] } as const;

/** Writes a folder; the same bytes for the same seed, other ones for another. */
export function writeTinyAdapter(folder: string, seed: number): string {
  mkdirSync(folder, { recursive: true });
  const config = {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    r: RANK,
    lora_alpha: 8,
    bias: "none",
    target_modules: ["down_proj", "q_proj"],
  };
  writeFileSync(path.join(folder, "adapter_config.json"), JSON.stringify(config));
  const header: Record<string, object> = {};
  const data: Buffer[] = [];
  let offset = 0;
  const add = (name: string, shape: [number, number]) => {
    const bytes = randomRow(seed * 1000 + data.length, 0.3, shape[0] * shape[1]);
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + bytes.length] };
    data.push(bytes);
    offset += bytes.length;
  };
  for (let layer = 0; layer < TINY.layers; layer++) {
    for (const [module, [inputs, outputs]] of Object.entries(MODULES)) {
      const name = `base_model.model.model.layers.${layer}.${module}`;
      add(`${name}.lora_A.weight`, [RANK, inputs]);
      add(`${name}.lora_B.weight`, [outputs, RANK]);
    }
  }
  // Values are aligned to their type.
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(
    path.join(folder, "adapter_model.safetensors"),
    Buffer.concat([length, json, ...data]),
  );
  return folder;
}
