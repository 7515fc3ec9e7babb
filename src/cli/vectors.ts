/** `llama-steer vectors`: the registry of steering vectors. */
import type { Command } from "commander";
import { floatsToBytes, type LayerRow } from "../client/client.js";
import { parseLabels } from "./arguments/labels.js";
import { collect, integer, layersOption, number } from "./arguments/options.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { UsageError } from "./exit.js";
import { readVectorFile } from "./files/vector-file.js";
import { randomDirection } from "./random-direction.js";
import { printVector, vectorSummary } from "./terminal/vector.js";
import { addCompare } from "./vectors-compare.js";
import { addDerive } from "./vectors-derive.js";
import { addExport, addImport } from "./vectors-files.js";

interface OutputOptions extends ConnectionOptions {
  json?: boolean;
}

interface CreateOptions extends OutputOptions {
  from?: string;
  random?: boolean;
  layers?: number[];
  norm: number;
  seed: number;
  label?: string[];
}

export function addVectors(program: Command, signal: AbortSignal): void {
  const vectors = program.command("vectors").description("the registry of steering vectors");
  addCreate(vectors, signal);
  addDerive(vectors, signal);
  addImport(vectors, signal);
  addExport(vectors, signal);
  addCompare(vectors, signal);
  addGet(vectors, signal);
  addList(vectors, signal);
  addDelete(vectors, signal);
}

function addCreate(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("create")
    .description("register a vector from a file, or a random direction as a control")
    .argument("<id>", "a-z, 0-9, '.', '_', '-'; at most 63 characters")
    .option("--from <FILE>", '.safetensors (layer.<L>), .json ({"<L>": [...]}) or .npy')
    .option("--random", "a random direction: the control that every vector should be compared with")
    .addOption(layersOption("layers of the rows (.npy, --random), or which to take: 3-5,7"))
    .addOption(number("--norm <X>", "length of each row of --random").default(1))
    .addOption(integer("--seed <N>", "seed of --random").default(0))
    .option("--label <KEY=VALUE>", "free text; may be repeated", collect)
    .option("--json", "print the vector as JSON");
  addConnectionOptions(command).action(async (vectorId: string, options: CreateOptions) => {
    if ((options.from === undefined) === !options.random) {
      throw new UsageError("give either --from FILE or --random");
    }
    const labels = parseLabels(options.label ?? []);
    const fileRows = options.from !== undefined && readVectorFile(options.from, options.layers);
    const vector = await withConnection(options, signal, async ({ client, call }) => {
      const width = async () => (await client.model.get(call)).architecture?.hiddenSize ?? 0;
      const rows = fileRows ? [...fileRows] : randomRows(options, await width());
      return client.vectors.create({ vectorId, rows, labels }, call);
    });
    printVector(vector, options);
  });
}

function randomRows({ layers, norm, seed }: CreateOptions, hiddenSize: number): LayerRow[] {
  if (!layers) throw new UsageError("--random needs --layers, such as --layers 4");
  return layers.map((layer) => ({
    layer,
    data: floatsToBytes(randomDirection(hiddenSize, norm, seed, layer)),
  }));
}

function addGet(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("get")
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
