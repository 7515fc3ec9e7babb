/** `llama-steer vectors import` and `export`: vectors as files of this and of other tools. */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Command, Option } from "commander";
import type { LayerConvention, VectorFormat } from "../client/client.js";
import { parseLabels } from "./arguments/labels.js";
import { collect, layersOption } from "./arguments/options.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { CommandError, UsageError } from "./exit.js";
import { formatBytes } from "./terminal/progress.js";
import { printVector, vectorSummary } from "./terminal/vector.js";

const FORMATS: Readonly<Record<string, VectorFormat>> = {
  safetensors: "VECTOR_FORMAT_SAFETENSORS",
  gguf: "VECTOR_FORMAT_GGUF",
  svec: "VECTOR_FORMAT_SVEC",
  npy: "VECTOR_FORMAT_NPY",
  npz: "VECTOR_FORMAT_NPZ",
  json: "VECTOR_FORMAT_JSON",
};

const CONVENTIONS: Readonly<Record<string, LayerConvention>> = {
  "block-output": "LAYER_CONVENTION_BLOCK_OUTPUT",
  "block-input": "LAYER_CONVENTION_BLOCK_INPUT",
};

interface FileOptions extends ConnectionOptions {
  format?: string;
  convention?: string;
  json?: boolean;
}

function addFileOptions(command: Command, formatHelp: string): Command {
  return command
    .addOption(new Option("--format <FORMAT>", formatHelp).choices(Object.keys(FORMATS)))
    .addOption(
      new Option(
        "--convention <WHERE>",
        "what row N of the file is: the stream after block N, or before it " +
          "(cvector-generator, hidden_states indices) (default: block-output)",
      ).choices(Object.keys(CONVENTIONS)),
    );
}

const fileFields = ({ format, convention }: FileOptions) => ({
  ...(format !== undefined && FORMATS[format] && { format: FORMATS[format] }),
  ...(convention !== undefined &&
    CONVENTIONS[convention] && { convention: CONVENTIONS[convention] }),
});

export function addImport(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("import")
    .description("register a vector from a file of this or another tool")
    .argument("<id>", "a-z, 0-9, '.', '_', '-'; at most 63 characters")
    .argument("<file>", `${Object.keys(FORMATS).join(", ")}; - is standard input`);
  addFileOptions(command, "format (default: told by the first bytes)")
    .addOption(layersOption("layers of the rows of a .npy: 3-5,7"))
    .option("--label <KEY=VALUE>", "free text; may be repeated", collect)
    .option("--json", "print the vector as JSON");
  addConnectionOptions(command).action(
    async (
      vectorId: string,
      file: string,
      options: FileOptions & { layers?: number[]; label?: string[] },
    ) => {
      const start = {
        vectorId,
        ...fileFields(options),
        layers: options.layers ?? [],
        labels: parseLabels(options.label ?? []),
      };
      const content = readContent(file);
      const vector = await withConnection(options, signal, ({ client, call }) =>
        client.vectors.import(start, content, call),
      );
      printVector(vector, options);
    },
  );
}

function readContent(file: string): Buffer {
  try {
    return readFileSync(file === "-" ? 0 : file);
  } catch (error) {
    throw new UsageError(`${file}: cannot be read: ${(error as Error).message}`);
  }
}

export function addExport(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("export")
    .description("write a vector to a file for this or another tool")
    .argument("<id>", "id, or pinned id")
    .option("-o, --out <FILE>", "- is standard output (default: <id>.<format>)");
  addFileOptions(command, "format (default: by the name of --out, else safetensors)").option(
    "--json",
    "print the vector as JSON",
  );
  addConnectionOptions(command).action(
    async (vectorId: string, options: FileOptions & { out?: string }) => {
      const { out } = options;
      const format = options.format ?? formatOf(out);
      const request = { vectorId, ...fileFields({ ...options, ...(format && { format }) }) };
      const { vector, fileName, content } = await withConnection(
        options,
        signal,
        ({ client, call }) => client.vectors.export(request, call),
      );
      if (out === "-") {
        process.stdout.write(content);
        return;
      }
      const file = out ?? fileName;
      writeWhole(file, content);
      if (options.json) process.stdout.write(`${JSON.stringify({ file, vector })}\n`);
      else {
        const size = formatBytes(content.length);
        process.stdout.write(`${file}  ${size}  ${vectorSummary(vector)}\n`);
      }
    },
  );
}

function formatOf(out: string | undefined): string | undefined {
  if (out === undefined || out === "-") return undefined;
  const extension = path.extname(out).slice(1);
  if (Object.hasOwn(FORMATS, extension)) return extension;
  throw new UsageError(`--out ${out}: ends in no known format; name one with --format`);
}

/** The file appears whole or not at all. */
function writeWhole(file: string, content: Buffer): void {
  const temporary = `${file}.tmp`;
  try {
    writeFileSync(temporary, content);
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new CommandError(`${file}: cannot be written: ${(error as Error).message}`);
  }
}
