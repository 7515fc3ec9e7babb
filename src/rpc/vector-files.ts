/** ImportVector and ExportVector. */
import { invalid } from "../errors.js";
import type { ExportVectorRequest__Output } from "../generated/llamasteer/v1/ExportVectorRequest.js";
import type { ExportVectorResponse } from "../generated/llamasteer/v1/ExportVectorResponse.js";
import type { ImportVectorRequest__Output } from "../generated/llamasteer/v1/ImportVectorRequest.js";
import type { ImportVectorStart__Output } from "../generated/llamasteer/v1/ImportVectorStart.js";
import type { Call, GenerationContext } from "../generation/context.js";
import { Background } from "../vectors/background/background.js";
import type { ByteBudget } from "../vectors/byte-budget.js";
import { exportFile } from "../vectors/formats/export.js";
import { type FileFormat, type LayerConvention, MAX_ROWS } from "../vectors/formats/file.js";
import type { VectorRecord } from "../vectors/vector.js";
import { Checker } from "./checker.js";
import { vectorMessage } from "./convert-vector.js";
import type { RequestLimits } from "./limits.js";
import { readRevision } from "./validate.js";

/** Null: to be told by the file. */
const FORMATS: ReadonlyMap<string, FileFormat | null> = new Map([
  ["VECTOR_FORMAT_UNSPECIFIED", null],
  ["VECTOR_FORMAT_SAFETENSORS", "safetensors"],
  ["VECTOR_FORMAT_GGUF", "gguf"],
  ["VECTOR_FORMAT_SVEC", "svec"],
  ["VECTOR_FORMAT_NPY", "npy"],
  ["VECTOR_FORMAT_NPZ", "npz"],
  ["VECTOR_FORMAT_JSON", "json"],
]);

const CONVENTIONS: ReadonlyMap<string, LayerConvention | null> = new Map([
  ["LAYER_CONVENTION_UNSPECIFIED", null],
  ["LAYER_CONVENTION_BLOCK_OUTPUT", "block_output"],
  ["LAYER_CONVENTION_BLOCK_INPUT", "block_input"],
]);

const CHUNK_BYTES = 256 * 1024;
/** LlamaForCausalLM is the only architecture that is served. */
const MODEL_TYPE = "llama";

export async function importVector(
  context: GenerationContext,
  limits: RequestLimits,
  budget: ByteBudget,
  requests: AsyncIterable<ImportVectorRequest__Output>,
  call: Call,
): Promise<VectorRecord> {
  using reservation = budget.reserve();
  const chunks: Uint8Array[] = [];
  let spec: ImportSpec | null = null;
  let bytes = 0;
  for await (const request of requests) {
    if (spec === null) {
      spec = readStart(context, request);
      continue;
    }
    if (request.part !== "chunk") throw invalid("part", "only the first message is a start");
    const chunk = request.chunk ?? Buffer.alloc(0);
    bytes += chunk.byteLength;
    if (bytes > limits.maxImportBytes) {
      throw invalid("chunk", `the file has more than ${limits.maxImportBytes} bytes`);
    }
    reservation.grow(chunk.byteLength);
    chunks.push(chunk);
  }
  if (spec === null) throw invalid("part", "is missing: the first message is a start");
  const { start, format, convention } = spec;
  await using background = new Background();
  const result = await background.run(
    {
      kind: "import",
      file: joined(chunks, bytes),
      format,
      convention,
      layers: start.layers,
      hiddenSize: context.model.config.hiddenSize,
      modelLayers: limits.layers,
      maxBytes: limits.maxImportBytes,
    },
    call.signal,
  );
  if ("problem" in result) throw invalid("chunk", result.problem);
  const { vectorId: id, labels } = start;
  return context.vectors.create({ id, rows: result.rows, labels, derivation: null });
}

interface ImportSpec {
  start: ImportVectorStart__Output;
  format: FileFormat | null;
  convention: LayerConvention | null;
}

function readStart(context: GenerationContext, request: ImportVectorRequest__Output): ImportSpec {
  const { start } = request;
  if (request.part !== "start" || !start) throw invalid("part", "the first message is no start");
  context.vectors.checkNew(start.vectorId, start.labels);
  const check = new Checker();
  check.atMost("layers", start.layers.length, MAX_ROWS, "rows");
  const spec = {
    start,
    format: check.enumValue("format", start.format, FORMATS, null),
    convention: check.enumValue("convention", start.convention, CONVENTIONS, null),
  };
  check.throwIfAny();
  return spec;
}

/** With a buffer of its own: it moves to the worker. */
function joined(chunks: readonly Uint8Array[], bytes: number): Uint8Array {
  const file = new Uint8Array(bytes);
  let offset = 0;
  for (const chunk of chunks) {
    file.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return file;
}

export async function* exportVector(
  context: GenerationContext,
  request: ExportVectorRequest__Output,
  call: Call,
): AsyncGenerator<ExportVectorResponse, void, undefined> {
  const check = new Checker();
  const format = check.enumValue("format", request.format, FORMATS, null) ?? "safetensors";
  const convention =
    check.enumValue("convention", request.convention, CONVENTIONS, null) ?? "block_output";
  check.throwIfAny();
  await context.vectors.waitForRevision(readRevision(request.minRegistryRevision), call.signal);
  const record = context.vectors.get(request.vectorId);
  const file = exportFile(record, format, convention, MODEL_TYPE);
  yield {
    header: {
      vector: vectorMessage(record),
      fileName: `${record.id}.${format}`,
      sizeBytes: file.byteLength,
    },
  };
  for (let at = 0; at < file.byteLength; at += CHUNK_BYTES) {
    yield { chunk: Buffer.from(file.subarray(at, at + CHUNK_BYTES)) };
  }
}
