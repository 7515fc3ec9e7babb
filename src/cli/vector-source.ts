/** A vector with its rows, from the registry of a server or from a file here. */
import path from "node:path";
import type { CallOptions, LlamaSteerClient } from "../client/client.js";
import { UsageError } from "./exit.js";
import { vectorDigest } from "./files/vector-digest.js";
import {
  readVectorFile,
  rowsOfSafetensors,
  selectRows,
  type VectorRows,
} from "./files/vector-file.js";

export interface SourcedVector {
  /** Id in the registry, or name of the file. */
  name: string;
  /** Of the whole vector, whatever layers were chosen. */
  digest: string;
  /** By rising layer; at least one. */
  rows: VectorRows;
}

/** `layers`: as for readVectorFile. Throws a UsageError that names the file. */
export function vectorFromFile(file: string, layers: readonly number[] | undefined): SourcedVector {
  // The rows of a .npy have no numbers of their own.
  const all = readVectorFile(file, file.endsWith(".npy") ? layers : undefined);
  if (all.length === 0) throw new UsageError(`${file}: holds no row`);
  const rows = selectRows(all, layers, file);
  return { name: path.basename(file), digest: vectorDigest(all), rows };
}

/** `vectorId` may be pinned. Throws a ClientError, or a UsageError for a layer that it lacks. */
export async function vectorFromServer(
  client: LlamaSteerClient,
  vectorId: string,
  layers: readonly number[] | undefined,
  call: CallOptions,
): Promise<SourcedVector> {
  const request = { vectorId, format: "VECTOR_FORMAT_SAFETENSORS" as const };
  const { vector, content } = await client.vectors.export(request, call);
  const rows = selectRows(rowsOfSafetensors(content, vectorId), layers, vectorId);
  return { name: vector.vectorId, digest: vector.digest, rows };
}
