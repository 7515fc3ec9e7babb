/** A random LoRA adapter on all seven projections of every block, as the engine takes it. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { randomSource } from "./load.mjs";

function projections({ hiddenSize, intermediateSize, headSize, queryHeads, kvHeads }) {
  const queries = queryHeads * headSize;
  const keys = kvHeads * headSize;
  return [
    ["q", hiddenSize, queries],
    ["k", hiddenSize, keys],
    ["v", hiddenSize, keys],
    ["o", queries, hiddenSize],
    ["gate", hiddenSize, intermediateSize],
    ["up", hiddenSize, intermediateSize],
    ["down", intermediateSize, hiddenSize],
  ];
}

/** Writes the values to `file`. `config`: the engine's. */
export function makeAdapter({ file, config, handle, rank }) {
  const random = randomSource(handle);
  const parts = [];
  let offsetBytes = 0;
  const tensor = (name, shape, amplitude) => {
    const values = Float32Array.from(
      { length: shape[0] * shape[1] },
      () => (random() - 0.5) * amplitude,
    );
    const bytes = Buffer.from(values.buffer);
    const location = { name, dtype: "f32", shape, file: 0, offsetBytes, sizeBytes: bytes.length };
    parts.push(bytes);
    offsetBytes += bytes.length;
    return location;
  };
  const targets = Array.from({ length: config.layers }, (_, layer) =>
    projections(config).map(([module, inputs, outputs]) => ({
      layer,
      module,
      rank,
      scale: 1,
      a: tensor(`${layer}.${module}.a`, [rank, inputs], 2 / Math.sqrt(inputs)),
      b: tensor(`${layer}.${module}.b`, [outputs, rank], 0.01),
    })),
  ).flat();
  const bytes = Buffer.concat(parts);
  writeFileSync(file, bytes);
  const digest = createHash("sha256").update(bytes).digest();
  return { handle, digest, paths: [file], targets };
}
