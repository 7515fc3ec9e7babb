/** What is captured: from what the client wrote to what the engine does, and what it costs. */
import { invalid } from "../errors.js";
import type { TokenBytes } from "../model/token-bytes.js";
import {
  type DTypeName,
  LENS_ENTRY_BYTES,
  type NativeActivationEvent,
  type NativeCapture,
  type NativeCaptureSite,
  type NativeLlamaConfig,
} from "../native/binding.js";
import { positionBehind, textBytes } from "./after-text.js";
import { type PositionScope, resolvePositions } from "./positions.js";
import type { SequenceShape } from "./steering.js";

export interface CaptureSpec {
  sites: NativeCaptureSite[];
  /** Empty: all. */
  layers: number[];
  tokens: PositionScope | { kind: "last" } | { kind: "after_text"; text: string };
  mean: boolean;
  beforeSteering: boolean;
  dtype: DTypeName;
  /** Most likely tokens of the logit lens at each row; 0: none. */
  lensTopK: number;
}

type ModelSizes = Pick<NativeLlamaConfig, "layers" | "hiddenSize">;

const VALUE_BYTES: Record<DTypeName, number> = { f32: 4, bf16: 2, f16: 2 };

/** Ascending, distinct. */
function layersOf(spec: CaptureSpec, model: ModelSizes): Int32Array {
  const all = Array.from({ length: model.layers }, (_, layer) => layer);
  const layers = spec.layers.length === 0 ? all : spec.layers;
  return Int32Array.from(new Set(layers)).sort();
}

/** Bytes of the captured rows of one token. */
export function captureTokenBytes(spec: CaptureSpec, model: ModelSizes): number {
  const inBlocks = spec.sites.filter((site) => site !== "final_norm").length;
  const finalNorm = spec.sites.length - inBlocks;
  const rows = inBlocks * layersOf(spec, model).length + finalNorm;
  return rows * (model.hiddenSize * VALUE_BYTES[spec.dtype] + spec.lensTopK * LENS_ENTRY_BYTES);
}

/** Throws InvalidArgumentError when no token of the sequence is selected. */
export function resolveCapture(
  spec: CaptureSpec,
  model: { config: ModelSizes; tokenBytes: TokenBytes },
  sequence: SequenceShape,
): NativeCapture {
  const { promptTokens, lastPosition, name } = sequence;
  const range = resolvePositions(scopeOf(spec.tokens), promptTokens, "capture.tokens");
  const end = spec.tokens.kind === "last" ? promptTokens : lastPosition + 1;
  const positionEnd = Math.min(range.end, end);
  if (range.begin >= positionEnd) {
    throw invalid(
      "capture.tokens",
      `select no token of ${name}, of which ${lastPosition + 1} are computed`,
    );
  }
  const text = spec.tokens.kind === "after_text" ? spec.tokens.text : null;
  if (text !== null) checkTextFound(text, model.tokenBytes, sequence);
  return {
    sites: spec.sites,
    layers: layersOf(spec, model.config),
    positionBegin: range.begin,
    positionEnd,
    mean: spec.mean,
    beforeSteering: spec.beforeSteering,
    dtype: spec.dtype,
    lensTopK: spec.lensTopK,
    afterText: textBytes(text),
  };
}

function scopeOf(tokens: CaptureSpec["tokens"]): PositionScope {
  switch (tokens.kind) {
    case "last":
      return { kind: "range", start: -1, end: null };
    case "after_text":
      return { kind: "all" };
    default:
      return tokens;
  }
}

/** A text that may still be generated need not appear. */
function checkTextFound(text: string, table: TokenBytes, sequence: SequenceShape): void {
  const { tokens, lastPosition, name } = sequence;
  if (tokens === null) return;
  const field = "capture.tokens.after_text";
  if (positionBehind(table, { tokens, name }, text, field) <= lastPosition) return;
  throw invalid(field, `no token stands behind it in ${name}`);
}

/** Bytes of all that is captured; a mean is one row. */
export function captureTotalBytes(capture: NativeCapture, tokenBytes: number): number {
  const tokens = capture.mean ? 1 : capture.positionEnd - capture.positionBegin;
  return tokens * tokenBytes;
}

/** The same rows in parts of at most `maxBytes` each, or of one row. */
export function* splitRows(
  event: NativeActivationEvent,
  maxBytes: number,
): Generator<NativeActivationEvent> {
  const rowBytes = event.data.byteLength / Math.max(1, event.rows);
  const step = Math.max(1, Math.floor(maxBytes / rowBytes));
  // A mean has one row and the positions of both ends.
  if (event.rows <= step) {
    yield event;
    return;
  }
  for (let begin = 0; begin < event.rows; begin += step) {
    const end = Math.min(event.rows, begin + step);
    yield {
      ...event,
      positions: event.positions.subarray(begin, end),
      tokenIds: event.tokenIds.subarray(begin, end),
      rows: end - begin,
      data: event.data.subarray(begin * rowBytes, end * rowBytes),
      lens: event.lens.slice(begin, end),
    };
  }
}
