/** `llama-steer bake`: a checkpoint that is steered by itself, for any engine. */
import path from "node:path";
import type { Command } from "commander";
import { formatLayers } from "./arguments/numbers.js";
import type { SteerArgument } from "./arguments/steer-syntax.js";
import { addSteerOption, type SteerOptions } from "./arguments/steering.js";
import { type FoldedVector, foldBiases, reasonNotFoldable } from "./bake/fold.js";
import { openSource } from "./bake/source.js";
import { writeBaked } from "./bake/write.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { UsageError } from "./exit.js";
import { formatBytes, progressBar } from "./terminal/progress.js";
import { formatNumber, shortDigest } from "./terminal/proof.js";
import { type SourcedVector, vectorFromFile, vectorFromServer } from "./vector-source.js";

interface BakeOptions extends SteerOptions, ConnectionOptions {
  model: string;
  out: string;
  json?: boolean;
}

const HELP = `
A baked checkpoint is an ordinary LlamaForCausalLM with mlp_bias: true. c·v becomes the bias of the
block's down_proj (float32), every other new bias is zero, every tensor of the source is copied byte
for byte. Only ADD on all tokens is a constant; everything else is refused.`;

export function addBake(program: Command, signal: AbortSignal): void {
  const command = program
    .command("bake")
    .description("write a checkpoint with a vector folded into its biases, for any engine")
    .requiredOption("--model <DIR>", "checkpoint folder to start from; it is not changed")
    .requiredOption("-o, --out <DIR>", "folder to write; must not exist, or be empty")
    .addHelpText("after", HELP);
  addSteerOption(command).option("--json", "print what was baked as JSON");
  addConnectionOptions(command).action(async (options: BakeOptions) => {
    const record = await bake(options, signal);
    process.stdout.write(options.json ? `${JSON.stringify(record)}\n` : describe(record));
  });
}

interface BakeRecord {
  out: string;
  bytes: number;
  steering: { vector: string; digest: string; coefficient: number; layers: number[] }[];
  biases: { layer: number; l2_norm: number }[];
}

async function bake(options: BakeOptions, signal: AbortSignal): Promise<BakeRecord> {
  const out = path.resolve(options.out);
  if (!options.steer) throw new UsageError("say what to bake: --steer VECTOR:COEFFICIENT");
  refuseWhatIsNoBias(options.steer);
  const source = openSource(options.model);
  const vectors = await vectorsOf(options.steer, options, signal);
  const biases = foldBiases(vectors, source.hiddenSize, source.blocks);
  const steering = vectors.map(({ name, digest, steering, rows }) => ({
    vector: name,
    digest,
    coefficient: Number(steering.coefficient ?? 1),
    layers: rows.map(({ layer }) => layer),
  }));
  const norms = [...biases]
    .sort(([a], [b]) => a - b)
    .map(([layer, bias]) => ({ layer, l2_norm: Math.hypot(...bias) }));
  const bytes = source.shards
    .flatMap(({ tensors }) => tensors)
    .reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  const bar = progressBar("baking", Math.ceil(bytes / MIB), "MiB");
  const onProgress = (done: number) => bar.update(Math.floor(done / MIB));
  const record = { steering, biases: norms };
  await writeBaked(source, biases, out, record, onProgress, signal).finally(() => bar.stop());
  return { out: options.out, bytes, ...record };
}

const MIB = 1024 * 1024;

/** Before anything is read or asked for. */
function refuseWhatIsNoBias(steer: readonly SteerArgument[]): void {
  for (const { steering, file } of steer) {
    const reason = reasonNotFoldable(steering);
    if (reason !== null) {
      throw new UsageError(`${file ?? steering.vectorId}: cannot be baked: ${reason}`);
    }
  }
}

/** Files are read here; ids are asked for from the server. */
async function vectorsOf(
  steer: readonly SteerArgument[],
  options: BakeOptions,
  signal: AbortSignal,
): Promise<(FoldedVector & SourcedVector)[]> {
  return withConnection(options, signal, ({ client, call }) =>
    Promise.all(
      steer.map(async ({ steering, file }) => {
        const layers = steering.layers?.length ? steering.layers : undefined;
        const vector =
          file === undefined
            ? await vectorFromServer(client, String(steering.vectorId), layers, call)
            : vectorFromFile(file, layers);
        return { ...vector, steering };
      }),
    ),
  );
}

function describe({ out, bytes, steering, biases }: BakeRecord): string {
  const vectors = steering.map(
    ({ vector, digest, coefficient, layers }) =>
      `  ${vector}@${shortDigest(digest)}  ADD × ${formatNumber(coefficient)}  ` +
      `${layers.length === 1 ? "layer" : "layers"} ${formatLayers(layers)}\n`,
  );
  const norms = biases.map(
    ({ layer, l2_norm }) => `  layer ${layer}  ‖bias‖ ${formatNumber(l2_norm)}\n`,
  );
  return `${out}  ${formatBytes(bytes)}\n${vectors.join("")}${norms.join("")}`;
}
