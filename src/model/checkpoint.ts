/** A Hugging Face checkpoint folder of a LlamaForCausalLM: everything but the weights' bytes. */
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import path from "node:path";
import { StartupError } from "../errors.js";
import type { NativeCheckpoint, NativeLlamaConfig } from "../native/binding.js";
import { isObject, type JsonObject, readJsonObject } from "./json.js";
import { parseLlamaConfig } from "./llama-config.js";
import { readSafetensorsHeader, type SafetensorsHeader } from "./safetensors.js";

export interface Checkpoint {
  folder: string;
  config: NativeLlamaConfig;
  /** As the files stand; parsed further by the tokenizer and the chat template. */
  configJson: JsonObject;
  native: NativeCheckpoint;
  /** Ids that end a completion, ascending; may be empty. */
  eosTokenIds: number[];
  /** "sha256:…"; see `fingerprintOf`. */
  fingerprint: string;
}

const SINGLE_FILE = "model.safetensors";
const INDEX_FILE = "model.safetensors.index.json";
const MAX_SHARDS = 1024;

/** Reads and checks a folder; throws a StartupError that says what and where. */
export function openCheckpoint(folder: string): Checkpoint {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    throw new StartupError(`${folder}: no such folder`);
  }
  const configFile = path.join(folder, "config.json");
  const configJson = readJsonObject(configFile);
  const config = parseLlamaConfig(configFile, configJson);
  const { paths, headers } = openShards(folder);

  const tensors = headers.flatMap((header, file) =>
    header.tensors.map((tensor) => ({ ...tensor, file })),
  );
  const native = { paths, tensors };
  const tied = impliesTied(
    folder,
    config,
    tensors.map(({ name }) => name),
  );
  return {
    folder,
    config: { ...config, tiedEmbeddings: tied },
    configJson,
    native,
    eosTokenIds: readEosTokenIds(folder, configJson, config.vocabSize),
    fingerprint: fingerprintOf(folder, paths, headers),
  };
}

/** Without lm_head, transformers would start it at random unless it is tied. */
function impliesTied(folder: string, config: NativeLlamaConfig, names: string[]): boolean {
  if (config.tiedEmbeddings || names.includes("lm_head.weight")) return config.tiedEmbeddings;
  throw new StartupError(
    `${folder}: tensor lm_head.weight is missing, and config.json does not set tie_word_embeddings`,
  );
}

function openShards(folder: string): { paths: string[]; headers: SafetensorsHeader[] } {
  const index = path.join(folder, INDEX_FILE);
  const single = path.join(folder, SINGLE_FILE);
  if (existsSync(single)) return { paths: [single], headers: [readSafetensorsHeader(single)] };
  if (!existsSync(index)) {
    const pickled = existsSync(path.join(folder, "pytorch_model.bin"));
    throw new StartupError(
      pickled
        ? `${folder}: pickled weights run code when loaded; convert them to safetensors`
        : `${folder}: neither ${SINGLE_FILE} nor ${INDEX_FILE}`,
    );
  }
  const { weight_map: weightMap } = readJsonObject(index);
  if (!isObject(weightMap)) throw new StartupError(`${index}: weight_map is not an object`);
  const names = [...new Set(Object.values(weightMap))];
  if (names.length === 0 || names.length > MAX_SHARDS) {
    throw new StartupError(`${index}: ${names.length} shards; 1 to ${MAX_SHARDS} are supported`);
  }
  const paths = names.map((name) => {
    if (typeof name !== "string" || !/^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$/.test(name)) {
      throw new StartupError(`${index}: ${JSON.stringify(name)} is not the name of a shard`);
    }
    return path.join(folder, name);
  });
  const headers = paths.map(readSafetensorsHeader);
  checkIndex(index, weightMap, names, headers);
  return { paths, headers };
}

/** Index and shards must say the same. */
function checkIndex(
  index: string,
  weightMap: JsonObject,
  shards: unknown[],
  headers: SafetensorsHeader[],
): void {
  const seen = new Set<string>();
  for (const [file, header] of headers.entries()) {
    for (const { name } of header.tensors) {
      if (weightMap[name] !== shards[file]) {
        throw new StartupError(`${index}: tensor ${name} lies in ${shards[file]}, not as indexed`);
      }
      seen.add(name);
    }
  }
  for (const name of Object.keys(weightMap)) {
    if (!seen.has(name)) {
      throw new StartupError(`${index}: tensor ${name} is in no shard`);
    }
  }
}

function readEosTokenIds(folder: string, configJson: JsonObject, vocabSize: number): number[] {
  const file = path.join(folder, "generation_config.json");
  const generation = existsSync(file) ? readJsonObject(file) : {};
  const value = generation["eos_token_id"] ?? configJson["eos_token_id"] ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    if (!Number.isInteger(id) || Number(id) < 0 || Number(id) >= vocabSize) {
      throw new StartupError(`${folder}: eos_token_id ${JSON.stringify(id)} is no token id`);
    }
  }
  return [...new Set(ids.map(Number))].sort((a, b) => a - b);
}

/** Of each tensor, so many samples of so many bytes are hashed, evenly from its first to its last. */
const SAMPLES = 8;
const SAMPLE_BYTES = 4096;

/**
 * sha256 over config.json, tokenizer.json, the safetensors headers and samples of each tensor (all
 * of a small one). It tells checkpoints apart in well under a second for any size; it is no
 * protection against someone who edits weights between the samples.
 */
function fingerprintOf(folder: string, paths: string[], headers: SafetensorsHeader[]): string {
  const hash = createHash("sha256");
  for (const name of ["config.json", "tokenizer.json"]) {
    const file = path.join(folder, name);
    if (existsSync(file)) hash.update(`${name}\0`).update(readFileSync(file));
  }
  const sample = Buffer.alloc(SAMPLE_BYTES);
  for (const [file, header] of headers.entries()) {
    hash.update("shard\0").update(header.bytes);
    const descriptor = openSync(paths[file] ?? "", "r");
    try {
      for (const tensor of header.tensors) {
        for (const offset of sampleOffsets(tensor.sizeBytes)) {
          const size = Math.min(SAMPLE_BYTES, tensor.sizeBytes - offset);
          const read = readSync(descriptor, sample, 0, size, tensor.offsetBytes + offset);
          hash.update(sample.subarray(0, read));
        }
      }
    } finally {
      closeSync(descriptor);
    }
  }
  return `sha256:${hash.digest("hex")}`;
}

/** Where samples of a tensor start, bytes from its start. */
function sampleOffsets(sizeBytes: number): number[] {
  const last = Math.max(0, sizeBytes - SAMPLE_BYTES);
  const offsets = Array.from({ length: SAMPLES }, (_, i) => Math.floor((last * i) / (SAMPLES - 1)));
  return [...new Set(offsets)];
}
