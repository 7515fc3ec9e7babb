/** What is captured: from what the client wrote to what the engine does, and what it costs. */
import { invalid } from "../errors.js";
import {
  type DTypeName,
  LENS_ENTRY_BYTES,
  type NativeActivationEvent,
  type NativeCapture,
  type NativeCaptureSite,
  type NativeLlamaConfig,
} from "../native/binding.js";
import { type PositionScope, resolvePositions } from "./positions.js";

export interface CaptureSpec {
  sites: NativeCaptureSite[];
  /** Empty: all. */
  layers: number[];
  tokens: PositionScope | { kind: "last" };
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

/** `field` is the path of the input. `computedEnd`: positions below it are computed. */
export function resolveCapture(
  spec: CaptureSpec,
  model: ModelSizes,
  promptTokens: number,
  computedEnd: number,
  field: string,
): NativeCapture {
  const scope: PositionScope =
    spec.tokens.kind === "last" ? { kind: "range", start: -1, end: null } : spec.tokens;
  const range = resolvePositions(scope, promptTokens, "capture.tokens");
  const last = spec.tokens.kind === "last" ? promptTokens : computedEnd;
  const positionEnd = Math.min(range.end, last);
  if (range.begin >= positionEnd) {
    throw invalid("capture.tokens", `select no token of ${field} (${computedEnd} are computed)`);
  }
  return {
    sites: spec.sites,
    layers: layersOf(spec, model),
    positionBegin: range.begin,
    positionEnd,
    mean: spec.mean,
    beforeSteering: spec.beforeSteering,
    dtype: spec.dtype,
    lensTopK: spec.lensTopK,
    afterText: new Uint8Array(),
  };
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
