/** The checkpoint folder that is baked: its config.json, and where each tensor lies. */
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import path from "node:path";
import { UsageError } from "../exit.js";
import { parseSafetensors, type TensorSpan } from "../files/safetensors.js";

const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";
const SHARD_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$/;

export interface Shard {
  /** File name in the folder. */
  name: string;
  tensors: TensorSpan[];
  metadata: Record<string, string>;
}

export interface SourceCheckpoint {
  folder: string;
  /** config.json as it stands. */
  config: Record<string, unknown>;
  shards: Shard[];
  /** model.safetensors.index.json as it stands; null for a single file. */
  index: { metadata?: Record<string, unknown>; weight_map: Record<string, string> } | null;
  blocks: number;
  hiddenSize: number;
  intermediateSize: number;
}

export const downProjection = (block: number) => `model.layers.${block}.mlp.down_proj`;

/** Reads everything but the data. Throws a UsageError that names the file. */
export function openSource(folder: string): SourceCheckpoint {
  const config = readJson(path.join(folder, "config.json"));
  const architectures = config["architectures"];
  if (!Array.isArray(architectures) || !architectures.includes("LlamaForCausalLM")) {
    throw new UsageError(
      `${folder}/config.json: is no LlamaForCausalLM, which mlp_bias belongs to`,
    );
  }
  const indexFile = path.join(folder, INDEX_FILE);
  const single = existsSync(path.join(folder, SINGLE_FILE));
  const index = single || !existsSync(indexFile) ? null : readIndex(indexFile);
  const names = index ? [...new Set(Object.values(index.weight_map))] : [SINGLE_FILE];
  const shards = names.map((name) => readShard(folder, name));
  const blocks = Number(config["num_hidden_layers"]);
  const [hiddenSize, intermediateSize] = mlpShape(folder, shards, blocks);
  return { folder, config, shards, index, blocks, hiddenSize, intermediateSize };
}

/** Every block's down_proj must be there and of one shape. */
function mlpShape(folder: string, shards: readonly Shard[], blocks: number): [number, number] {
  const shapes = new Map(
    shards.flatMap(({ tensors }) => tensors.map(({ name, shape }) => [name, shape] as const)),
  );
  let first: readonly number[] | undefined;
  for (let block = 0; block < blocks; block++) {
    const name = `${downProjection(block)}.weight`;
    const shape = shapes.get(name);
    first ??= shape;
    if (shape?.length !== 2 || String(shape) !== String(first)) {
      throw new UsageError(`${folder}: tensor ${name} is missing or has an odd shape`);
    }
  }
  const [hiddenSize, intermediateSize] = first ?? [];
  if (!hiddenSize || !intermediateSize) {
    throw new UsageError(`${folder}/config.json: num_hidden_layers is missing`);
  }
  return [hiddenSize, intermediateSize];
}

function readIndex(file: string): NonNullable<SourceCheckpoint["index"]> {
  const index = readJson(file);
  const map = index["weight_map"];
  const names = typeof map === "object" && map !== null ? Object.values(map) : [];
  if (names.length === 0 || !names.every((name) => SHARD_NAME.test(String(name)))) {
    throw new UsageError(`${file}: weight_map does not name shards in this folder`);
  }
  return index as unknown as NonNullable<SourceCheckpoint["index"]>;
}

function readShard(folder: string, name: string): Shard {
  const file = path.join(folder, name);
  let descriptor: number;
  try {
    descriptor = openSync(file, "r");
  } catch (error) {
    throw new UsageError(`${file}: cannot be read: ${(error as Error).message}`);
  }
  try {
    const readAt = (offset: number, size: number) => {
      const bytes = Buffer.alloc(size);
      return bytes.subarray(0, readSync(descriptor, bytes, 0, size, offset));
    };
    return { name, ...parseSafetensors(readAt, fstatSync(descriptor).size, file) };
  } finally {
    closeSync(descriptor);
  }
}

function readJson(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`${file}: cannot be read: ${(error as Error).message}`);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch (error) {
    throw new UsageError(`${file}: is not JSON: ${(error as Error).message}`);
  }
  throw new UsageError(`${file}: is not an object`);
}
