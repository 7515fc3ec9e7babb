/** `llama-steer vectors`: the registry of steering vectors. */
import type { Command } from "commander";
import { floatsToBytes } from "../client/client.js";
import { randomDirection } from "../study/random-direction.js";
import { parseLabels } from "./arguments/labels.js";
import { collect, integer, layersOption, number } from "./arguments/options.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { printVector, vectorSummary } from "./terminal/vector.js";
import { addCompare } from "./vectors-compare.js";
import { addDerive } from "./vectors-derive.js";
import { addExport, addImport } from "./vectors-files.js";

interface OutputOptions extends ConnectionOptions {
  json?: boolean;
}

interface RandomOptions extends OutputOptions {
  layers: number[];
  norm: number;
  seed: number;
  label?: string[];
}

export function addVectors(program: Command, signal: AbortSignal): void {
  const vectors = program.command("vectors").description("the registry of steering vectors");
  addDerive(vectors, signal);
  addImport(vectors, signal);
  addExport(vectors, signal);
  addRandom(vectors, signal);
  addCompare(vectors, signal);
  addGet(vectors, signal);
  addList(vectors, signal);
  addDelete(vectors, signal);
}

function addRandom(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("random")
    .description("register a random direction: the control that a vector is compared with")
    .argument("<id>", "a-z, 0-9, '.', '_', '-'; at most 63 characters")
    .addOption(layersOption("layers of the vector: 3-5,7").makeOptionMandatory())
    .addOption(number("--norm <X>", "length of each row").default(1))
    .addOption(integer("--seed <N>", "same seed, same direction").default(0))
    .option("--label <KEY=VALUE>", "free text; may be repeated", collect)
    .option("--json", "print the vector as JSON");
  addConnectionOptions(command).action(async (vectorId: string, options: RandomOptions) => {
    const { layers, norm, seed } = options;
    const labels = parseLabels(options.label ?? []);
    const vector = await withConnection(options, signal, async ({ client, call }) => {
      const width = (await client.model.get(call)).architecture?.hiddenSize ?? 0;
      const rows = layers.map((layer) => ({
        layer,
        data: floatsToBytes(randomDirection(width, norm, seed, layer)),
      }));
      return client.vectors.create({ vectorId, rows, labels }, call);
    });
    printVector(vector, options);
  });
}

function addGet(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("show")
    .alias("get")
    .description("describe a vector")
    .argument("<id>", "id, or pinned id")
    .option("--json", "print the vector as JSON");
  addConnectionOptions(command).action(async (vectorId: string, options: OutputOptions) => {
    const vector = await withConnection(options, signal, ({ client, call }) =>
      client.vectors.get(vectorId, call),
    );
    printVector(vector, options);
  });
}

function addList(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("list")
    .description("list the vectors")
    .option("--label <KEY=VALUE>", "only those with this label; may be repeated", collect)
    .option("--json", "one JSON object a line");
  addConnectionOptions(command).action(async (options: OutputOptions & { label?: string[] }) => {
    const filter = parseLabels(options.label ?? []);
    await withConnection(options, signal, async ({ client, call }) => {
      for await (const vector of client.vectors.list(filter, call)) {
        process.stdout.write(`${options.json ? JSON.stringify(vector) : vectorSummary(vector)}\n`);
      }
    });
  });
}

function addDelete(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("delete")
    .description("remove an id; a pinned id only if the content matches")
    .argument("<id>", "id, or pinned id");
  addConnectionOptions(command).action(async (vectorId: string, options: ConnectionOptions) => {
    await withConnection(options, signal, ({ client, call }) =>
      client.vectors.delete(vectorId, call),
    );
    process.stdout.write(`deleted ${vectorId}\n`);
  });
}
