/** A registered vector as the bytes of a file. */
import { invalid } from "../../errors.js";
import { rowOf, type VectorRecord } from "../vector.js";
import type { FileFormat, FileRow, LayerConvention } from "./file.js";
import { encodeGguf } from "./gguf.js";
import { encodeJsonRows, encodeSvec } from "./json-rows.js";
import { encodeNpy, encodeNpz } from "./npy.js";
import { encodeVector } from "./safetensors.js";

/** `modelType`: as in config.json. Throws InvalidArgumentError with the field "format". */
export function exportFile(
  record: VectorRecord,
  format: FileFormat,
  convention: LayerConvention,
  modelType: string,
): Uint8Array {
  const { content, digest } = record;
  const shift = convention === "block_input" ? 1 : 0;
  const rows = Array.from(
    content.layers,
    (layer, slot): FileRow => ({
      number: layer + shift,
      values: rowOf(content, slot),
    }),
  );
  switch (format) {
    case "safetensors":
      return encodeVector(
        { ...content, layers: content.layers.map((layer) => layer + shift) },
        metadataOf(record, convention),
      );
    case "gguf":
      if (rows.some(({ number }) => number === 0)) {
        throw invalid("format", "GGUF control vectors have no row 0, and the vector holds block 0");
      }
      return encodeGguf(rows, modelType, digest);
    case "svec":
      return encodeSvec(rows, modelType);
    case "npy":
      return encodeNpy([rows.length, content.hiddenSize], content.rows);
    case "npz":
      return encodeNpz(rows);
    case "json":
      return encodeJsonRows(rows);
  }
}

/** The digest is that of the content, whatever the numbers of the rows in the file. */
function metadataOf(record: VectorRecord, convention: LayerConvention): Record<string, string> {
  const { id, digest, derivation } = record;
  return {
    vector_id: id,
    digest,
    convention,
    ...(derivation && { derivation: JSON.stringify(derivation) }),
  };
}
