/** `llama-steer vectors compare`: two vectors, layer by layer. */
import type { Command } from "commander";
import { bytesToFloats } from "../client/client.js";
import { layersOption } from "./arguments/options.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { CommandError } from "./exit.js";
import { formatNumber, shortDigest } from "./terminal/proof.js";
import { table } from "./terminal/table.js";
import { type SourcedVector, vectorFromFile, vectorFromServer } from "./vector-source.js";

interface CompareOptions extends ConnectionOptions {
  layers?: number[];
  json?: boolean;
}

/** One layer; null where only the other vector has it. */
export interface LayerComparison {
  layer: number;
  normA: number | null;
  normB: number | null;
  /** Null where one is missing or zero. */
  cosine: number | null;
}

export function addCompare(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("compare")
    .description("norms and cosine of two vectors, layer by layer")
    .argument("<a>", "id, pinned id, or @FILE (.safetensors, .json, .npy)")
    .argument("<b>", "the same")
    .addOption(layersOption("only these layers; for a .npy the layers of its rows"))
    .option("--json", "print one JSON object");
  addConnectionOptions(command).action(async (a: string, b: string, options: CompareOptions) => {
    const sourced = await withConnection(options, signal, ({ client, call }) =>
      Promise.all(
        [a, b].map((name) =>
          name.startsWith("@")
            ? vectorFromFile(name.slice(1), options.layers)
            : vectorFromServer(client, name, options.layers, call),
        ),
      ),
    );
    const [first, second] = sourced as [SourcedVector, SourcedVector];
    const layers = compareVectors(first, second);
    if (options.json) {
      const of = ({ name, digest }: SourcedVector) => ({ name, digest });
      process.stdout.write(`${JSON.stringify({ a: of(first), b: of(second), layers })}\n`);
    } else process.stdout.write(describe(first, second, layers));
  });
}

/** By rising layer. Throws a CommandError when the widths differ. */
export function compareVectors(a: SourcedVector, b: SourcedVector): LayerComparison[] {
  if (widthOf(a) !== widthOf(b)) {
    throw new CommandError(
      `${a.name} has rows of ${widthOf(a)} values, ${b.name} of ${widthOf(b)}: not of one model`,
    );
  }
  const rowsOf = ({ rows }: SourcedVector) =>
    new Map(rows.map(({ layer, data }) => [layer, bytesToFloats(data)]));
  const [left, right] = [rowsOf(a), rowsOf(b)];
  const layers = [...new Set([...left.keys(), ...right.keys()])].sort((x, y) => x - y);
  return layers.map((layer) => {
    const [x, y] = [left.get(layer), right.get(layer)];
    const normA = x ? Math.hypot(...x) : null;
    const normB = y ? Math.hypot(...y) : null;
    const product = x?.reduce((sum, value, i) => sum + value * (y?.[i] ?? 0), 0) ?? 0;
    return { layer, normA, normB, cosine: normA && normB ? product / (normA * normB) : null };
  });
}

const widthOf = ({ rows }: SourcedVector) => (rows[0]?.data.length ?? 0) / 4;

function describe(a: SourcedVector, b: SourcedVector, layers: LayerComparison[]): string {
  const cell = (value: number | null, text: (value: number) => string) =>
    value === null ? "–" : text(value);
  const rows = layers.map(({ layer, normA, normB, cosine }) => [
    String(layer),
    cell(normA, formatNumber),
    cell(normB, formatNumber),
    cell(cosine, (value) => value.toFixed(6)),
  ]);
  const columns = ["layer", "‖a‖", "‖b‖", "cosine"].map((title) => ({ title }));
  // The mean of |cos| of two random directions of d dimensions: sqrt(2 / (π d)).
  const chance = Math.sqrt(2 / (Math.PI * widthOf(a)));
  return (
    `a  ${a.name}@${shortDigest(a.digest)}\nb  ${b.name}@${shortDigest(b.digest)}\n` +
    `${table(columns, rows)}two random directions of this width: |cosine| ${formatNumber(chance)}\n`
  );
}
