/** A LoRA adapter folder in the layout of PEFT: everything but the weights' bytes. */
import { createHash, type Hash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { StartupError } from "../errors.js";
import type {
  NativeAdapter,
  NativeLlamaConfig,
  NativeLoraModule,
  NativeLoraTarget,
  NativeTensorLocation,
} from "../native/binding.js";
import { readJsonObject, reasonOf } from "./json.js";
import { type PeftConfig, parsePeftConfig } from "./peft-config.js";
import { readSafetensorsHeader } from "./safetensors.js";

export interface Adapter {
  folder: string;
  /** "sha256:…" over names, types, shapes, scales and bytes of every factor. */
  digest: string;
  /** The largest of its ranks. */
  rank: number;
  /** In the order of a block. */
  modules: NativeLoraModule[];
  sizeBytes: number;
  /** `digest` as bytes, paths and targets: what the engine takes, but for the handle. */
  native: Omit<NativeAdapter, "handle">;
}

const CONFIG_FILE = "adapter_config.json";
const WEIGHTS_FILE = "adapter_model.safetensors";
const PICKLED_FILE = "adapter_model.bin";
const PREFIX = "base_model.model.";
const HASH_CHUNK_BYTES = 1 << 20;

const MODULES: readonly [module: NativeLoraModule, name: string][] = [
  ["q", "self_attn.q_proj"],
  ["k", "self_attn.k_proj"],
  ["v", "self_attn.v_proj"],
  ["o", "self_attn.o_proj"],
  ["gate", "mlp.gate_proj"],
  ["up", "mlp.up_proj"],
  ["down", "mlp.down_proj"],
];

/**
 * Reads and checks a folder against the model; reads the weights once, for the digest. Throws a
 * StartupError that says what and where.
 */
export async function openAdapter(folder: string, config: NativeLlamaConfig): Promise<Adapter> {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    throw new StartupError(`${folder}: no such folder`);
  }
  const configFile = path.join(folder, CONFIG_FILE);
  const peft = parsePeftConfig(configFile, readJsonObject(configFile));
  const file = path.join(folder, WEIGHTS_FILE);
  if (!existsSync(file) && existsSync(path.join(folder, PICKLED_FILE))) {
    throw new StartupError(
      `${folder}: pickled weights run code when loaded; convert them to safetensors`,
    );
  }
  const { tensors } = readSafetensorsHeader(file);
  const targets = findTargets(file, tensors, peft, config);
  const digest = await digestOf(file, targets);
  const named = new Set(targets.map(({ module }) => module));
  return {
    folder,
    digest: `sha256:${digest.toString("hex")}`,
    rank: Math.max(...targets.map(({ rank }) => rank)),
    modules: MODULES.map(([module]) => module).filter((module) => named.has(module)),
    sizeBytes: targets.reduce((sum, { a, b }) => sum + a.sizeBytes + b.sizeBytes, 0),
    native: { digest: new Uint8Array(digest), paths: [file], targets },
  };
}

/** Both factors of every module, in the order of the blocks; nothing missing, nothing left over. */
function findTargets(
  file: string,
  tensors: readonly NativeTensorLocation[],
  peft: PeftConfig,
  config: NativeLlamaConfig,
): NativeLoraTarget[] {
  const left = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const targets: NativeLoraTarget[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    for (const [module, name] of MODULES) {
      const key = `model.layers.${layer}.${name}`;
      const wanted = peft.targets(key);
      const { rank, scale } = peft.ruleFor(key);
      const { inputs, outputs } = sizesOf(module, config);
      const present = wanted ?? left.has(factorName(key, "A"));
      if (!present) continue;
      const a = takeFactor(file, left, factorName(key, "A"), [rank, inputs]);
      const b = takeFactor(file, left, factorName(key, "B"), [outputs, rank]);
      targets.push({ layer, module, rank, scale, a, b });
    }
  }
  const [extra] = left.keys();
  if (extra !== undefined) {
    throw new StartupError(
      `${file}: tensor ${extra} is not a LoRA factor of q, k, v, o, gate, up or down that ${CONFIG_FILE} names for this model`,
    );
  }
  if (targets.length === 0) throw new StartupError(`${file}: the adapter changes no projection`);
  return targets;
}

function factorName(key: string, factor: "A" | "B"): string {
  return `${PREFIX}${key}.lora_${factor}.weight`;
}

function takeFactor(
  file: string,
  left: Map<string, NativeTensorLocation>,
  name: string,
  shape: number[],
): NativeTensorLocation {
  const tensor = left.get(name);
  if (!tensor) throw new StartupError(`${file}: tensor ${name} is missing`);
  left.delete(name);
  if (tensor.shape.length !== 2 || tensor.shape.some((size, i) => size !== shape[i])) {
    throw new StartupError(
      `${file}: tensor ${name} has shape ${JSON.stringify(tensor.shape)}; ${CONFIG_FILE} and the model ask for ${JSON.stringify(shape)}`,
    );
  }
  return tensor;
}

function sizesOf(
  module: NativeLoraModule,
  config: NativeLlamaConfig,
): { inputs: number; outputs: number } {
  const { hiddenSize, intermediateSize } = config;
  const queries = config.queryHeads * config.headSize;
  const keys = config.kvHeads * config.headSize;
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

/** Independent of the file's layout: the factors are taken in the order of their names. */
async function digestOf(file: string, targets: readonly NativeLoraTarget[]): Promise<Buffer> {
  const factors = targets.flatMap(({ a, b, scale }) => [
    { tensor: a, scale },
    { tensor: b, scale },
  ]);
  factors.sort((x, y) => (x.tensor.name < y.tensor.name ? -1 : 1));
  const hash = createHash("sha256");
  try {
    const handle = await open(file, "r");
    try {
      const chunk = Buffer.alloc(HASH_CHUNK_BYTES);
      for (const { tensor, scale } of factors) {
        hash.update(`${JSON.stringify([tensor.name, tensor.dtype, tensor.shape, scale])}\n`);
        await addBytes(hash, handle, tensor, chunk);
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new StartupError(`${file}: cannot be read: ${reasonOf(error)}`);
  }
  return hash.digest();
}

async function addBytes(
  hash: Hash,
  handle: Awaited<ReturnType<typeof open>>,
  { offsetBytes, sizeBytes }: NativeTensorLocation,
  chunk: Buffer,
): Promise<void> {
  for (let done = 0; done < sizeBytes; ) {
    const wanted = Math.min(chunk.length, sizeBytes - done);
    const { bytesRead } = await handle.read(chunk, 0, wanted, offsetBytes + done);
    if (bytesRead === 0) throw new Error("the file has become shorter");
    hash.update(chunk.subarray(0, bytesRead));
    done += bytesRead;
  }
}
