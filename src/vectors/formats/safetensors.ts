/** The native format: a tensor `layer.<L>` F32 [hidden size] for each block, texts as metadata. */
import {
  headerLength,
  LENGTH_BYTES,
  parseHeader,
  SafetensorsError,
} from "../../model/safetensors-header.js";
import { floatBytes, floatsOf, rowOf, type VectorContent, valuesProblem } from "../vector.js";

export interface VectorFile {
  content: VectorContent;
  metadata: Record<string, string>;
}

const LAYER_NAME = /^layer\.(0|[1-9][0-9]{0,3})$/;
/** The data start on a multiple of this, as the reference library writes them. */
const ALIGNMENT_BYTES = 8;

/** The same content and metadata give the same bytes. */
export function encodeVector(content: VectorContent, metadata: Record<string, string>): Uint8Array {
  const rowBytes = content.hiddenSize * Float32Array.BYTES_PER_ELEMENT;
  const keys = Object.keys(metadata).sort();
  const header: Record<string, unknown> = {
    __metadata__: Object.fromEntries(keys.map((key) => [key, metadata[key]])),
  };
  for (const [slot, layer] of content.layers.entries()) {
    header[`layer.${layer}`] = {
      dtype: "F32",
      shape: [content.hiddenSize],
      data_offsets: [slot * rowBytes, (slot + 1) * rowBytes],
    };
  }
  const json = Buffer.from(JSON.stringify(header));
  const padding = (ALIGNMENT_BYTES - (json.length % ALIGNMENT_BYTES)) % ALIGNMENT_BYTES;
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeBigUInt64LE(BigInt(json.length + padding));
  return Buffer.concat([
    length,
    json,
    Buffer.alloc(padding, " "),
    ...Array.from(content.layers, (_, slot) => floatBytes(rowOf(content, slot))),
  ]);
}

/** Throws a SafetensorsError that says what is wrong. */
export function decodeVector(file: Uint8Array): VectorFile {
  const headerEnd = LENGTH_BYTES + headerLength(file.subarray(0, LENGTH_BYTES), file.byteLength);
  const { tensors, metadata } = parseHeader(
    file.subarray(LENGTH_BYTES, headerEnd),
    file.byteLength,
  );
  if (tensors.length === 0) throw new SafetensorsError("holds no layer");
  const hiddenSize = tensors[0]?.shape[0] ?? 0;
  const rows = tensors.map(({ name, dtype, shape, offsetBytes, sizeBytes }) => {
    const layer = LAYER_NAME.exec(name)?.[1];
    if (layer === undefined)
      throw new SafetensorsError(`tensor ${JSON.stringify(name)}: not named layer.<L>`);
    if (dtype !== "f32" || shape.length !== 1) {
      throw new SafetensorsError(`tensor ${JSON.stringify(name)}: not one row of F32`);
    }
    const values = floatsOf(file.subarray(offsetBytes, offsetBytes + sizeBytes));
    const problem = valuesProblem(values, hiddenSize);
    if (problem !== null) throw new SafetensorsError(`tensor ${JSON.stringify(name)}: ${problem}`);
    return { layer: Number(layer), values };
  });
  rows.sort((a, b) => a.layer - b.layer);
  const content: VectorContent = {
    hiddenSize,
    layers: Int32Array.from(rows, ({ layer }) => layer),
    rows: new Float32Array(rows.length * hiddenSize),
  };
  for (const [slot, { values }] of rows.entries()) content.rows.set(values, slot * hiddenSize);
  return { content, metadata };
}
