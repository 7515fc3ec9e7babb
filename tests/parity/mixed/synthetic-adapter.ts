/** A LoRA adapter made from a formula, as the engine takes it. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import type {
  NativeAdapter,
  NativeLoraModule,
  NativeTensorLocation,
} from "../../../src/native/binding.js";
import { type SyntheticModel, steeringRow } from "../synthetic-checkpoint.js";

const MODULES: NativeLoraModule[] = ["q", "k", "v", "o", "gate", "up", "down"];

function sizes(
  model: SyntheticModel,
  module: NativeLoraModule,
): { inputs: number; outputs: number } {
  const { hiddenSize, intermediateSize, headSize } = model;
  const [queries, keys] = [model.queryHeads * headSize, model.kvHeads * headSize];
  switch (module) {
    case "q":
      return { inputs: hiddenSize, outputs: queries };
    case "k":
    case "v":
      return { inputs: hiddenSize, outputs: keys };
    case "o":
      return { inputs: queries, outputs: hiddenSize };
    case "gate":
    case "up":
      return { inputs: hiddenSize, outputs: intermediateSize };
    case "down":
      return { inputs: intermediateSize, outputs: hiddenSize };
  }
}

/** Writes its tensors to `file`. Odd handles change every projection, even ones every third. */
export function syntheticAdapter(
  file: string,
  model: SyntheticModel,
  seed: number,
  handle: number,
): NativeAdapter {
  const parts: Buffer[] = [];
  let offsetBytes = 0;
  const tensor = (name: string, shape: [number, number], gain: number): NativeTensorLocation => {
    const values = steeringRow(seed, handle, offsetBytes, shape[0] * shape[1]);
    const bytes = Buffer.from(values.map((value) => value * gain).buffer);
    const location = { name, dtype: "f32", shape, file: 0, offsetBytes } as const;
    parts.push(bytes);
    offsetBytes += bytes.length;
    return { ...location, sizeBytes: bytes.length };
  };
  const targets = Array.from({ length: model.layers }, (_, layer) => layer)
    .flatMap((layer) => MODULES.map((module) => ({ layer, module })))
    .filter((_, index) => handle % 2 === 1 || index % 3 === 0)
    .map(({ layer, module }) => {
      const { inputs, outputs } = sizes(model, module);
      const rank = 2 + handle;
      const a = tensor(`${layer}.${module}.a`, [rank, inputs], 1 / Math.sqrt(inputs));
      const b = tensor(`${layer}.${module}.b`, [outputs, rank], 0.5);
      return { layer, module, rank, scale: 1 / handle, a, b };
    });
  const bytes = Buffer.concat(parts);
  writeFileSync(file, bytes);
  return {
    handle,
    digest: createHash("sha256").update(bytes).digest(),
    paths: [file],
    targets,
  };
}
