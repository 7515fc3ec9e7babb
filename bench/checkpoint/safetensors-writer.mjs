/** Writes the shards of a safetensors checkpoint, and their index when there is more than one. */
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { DTYPES } from "./random-weights.mjs";

const sizeOf = ({ shape }, dtype) =>
  shape.reduce((product, size) => product * size, DTYPES[dtype].bytes);

/** Cuts the list into runs of about equal size; no tensor is split. */
function splitIntoShards(tensors, dtype, shards) {
  const total = tensors.reduce((sum, tensor) => sum + sizeOf(tensor, dtype), 0);
  const runs = Array.from({ length: shards }, () => []);
  let done = 0;
  for (const [index, tensor] of tensors.entries()) {
    const byBytes = Math.min(shards - 1, Math.floor((done / total) * shards));
    // No shard may stay empty: leave at least one tensor for each that follows.
    const latest = Math.max(0, shards - (tensors.length - index));
    runs[Math.max(byBytes, latest)].push(tensor);
    done += sizeOf(tensor, dtype);
  }
  return runs.filter((run) => run.length > 0);
}

/** Eight bytes of length and the header, padded so that the data is aligned to 64 bytes. */
function headerOf(tensors, dtype) {
  let offset = 0;
  const entries = tensors.map((tensor) => {
    const begin = offset;
    offset += sizeOf(tensor, dtype);
    const entry = { dtype: DTYPES[dtype].safetensors, shape: tensor.shape };
    return [tensor.name, { ...entry, data_offsets: [begin, offset] }];
  });
  const text = JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) });
  const padded = text.padEnd(Math.ceil((8 + text.length) / 64) * 64 - 8, " ");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, Buffer.from(padded)]);
}

/** A chunk may be reused by its maker once it is written. */
function writeAll(descriptor, chunks, onBytes) {
  for (const chunk of chunks) {
    let written = 0;
    while (written < chunk.length) {
      written += writeSync(descriptor, chunk, written);
    }
    onBytes(chunk.length);
  }
}

/** `weights.chunks(tensor)` gives the bytes; `onProgress(done, total)` is called in between. */
export function writeSafetensors({ folder, tensors, dtype, shards, weights, onProgress }) {
  const totalBytes = tensors.reduce((sum, tensor) => sum + sizeOf(tensor, dtype), 0);
  const runs = splitIntoShards(tensors, dtype, shards);
  const weightMap = {};
  let doneBytes = 0;
  for (const [index, run] of runs.entries()) {
    const number = (value) => String(value).padStart(5, "0");
    const name =
      runs.length === 1
        ? "model.safetensors"
        : `model-${number(index + 1)}-of-${number(runs.length)}.safetensors`;
    const descriptor = openSync(path.join(folder, name), "w");
    try {
      writeAll(descriptor, [headerOf(run, dtype)], () => {});
      for (const tensor of run) {
        weightMap[tensor.name] = name;
        writeAll(descriptor, weights.chunks(tensor), (bytes) => {
          doneBytes += bytes;
          onProgress(doneBytes, totalBytes);
        });
      }
    } finally {
      closeSync(descriptor);
    }
  }
  if (runs.length > 1) {
    const index = { metadata: { total_size: totalBytes }, weight_map: weightMap };
    const file = path.join(folder, "model.safetensors.index.json");
    writeFileSync(file, `${JSON.stringify(index, null, 2)}\n`);
  }
  return { totalBytes, files: runs.length };
}
