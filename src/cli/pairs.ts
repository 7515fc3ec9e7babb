/**
 * Steering vectors from contrastive pairs, over the public contract: captures RESID_POST of every
 * positive and negative text and takes the mean difference. Sums are float64, so that the vector
 * does not depend on the order of the pairs beyond float32 rounding.
 */
import {
  type ActivationChunk,
  type ActivationDType,
  type CallOptions,
  type CaptureInput,
  decodeFloats,
  floatsToBytes,
  type LayerRow,
  type LlamaSteerClient,
} from "../client/client.js";
import { inputOf, parseJson, readLines } from "./arguments/input.js";
import { CommandError, UsageError } from "./exit.js";

export interface Pair {
  positive: CaptureInput;
  negative: CaptureInput;
}

/** JSONL of {positive, negative}: each a text, {"prompt"} or {"messages"}. */
export function readPairs(file: string): Pair[] {
  return readLines(file).map(({ text, place }) => {
    const { positive, negative } = (parseJson(text, place) ?? {}) as Record<string, unknown>;
    if (positive === undefined || negative === undefined) {
      throw new UsageError(`${place}: needs "positive" and "negative"`);
    }
    return {
      positive: inputOf(positive, `${place}: positive`),
      negative: inputOf(negative, `${place}: negative`),
    };
  });
}

export interface MeanDifferenceOptions {
  /** Empty: all. */
  layers: readonly number[];
  /** Which token of each text is read: its last, or the mean over all. */
  token: "last" | "mean";
  call: CallOptions;
  onProgress?: (pairsDone: number) => void;
}

/** mean(positive) − mean(negative) of the residual stream after each layer. */
export async function meanDifference(
  client: LlamaSteerClient,
  pairs: readonly Pair[],
  options: MeanDifferenceOptions,
): Promise<LayerRow[]> {
  const model = await client.model.get(options.call);
  if (!model.captureEnabled) {
    throw new CommandError("capture is off on this server: start it with --capture on");
  }
  const pairsPerCall = Math.max(1, Math.floor((model.limits?.maxCaptureInputs ?? 2) / 2));
  const sums = new Map<number, Float64Array>();
  for (let first = 0; first < pairs.length; first += pairsPerCall) {
    const batch = pairs.slice(first, first + pairsPerCall);
    await addBatch(client, batch, options, sums);
    options.onProgress?.(first + batch.length);
  }
  return [...sums]
    .sort(([a], [b]) => a - b)
    .map(([layer, sum]) => ({
      layer,
      data: floatsToBytes(sum.map((value) => value / pairs.length)),
    }));
}

async function addBatch(
  client: LlamaSteerClient,
  batch: readonly Pair[],
  options: MeanDifferenceOptions,
  sums: Map<number, Float64Array>,
): Promise<void> {
  const request = {
    inputs: batch.flatMap(({ positive, negative }) => [positive, negative]),
    capture: {
      sites: ["SITE_RESID_POST" as const],
      layers: [...options.layers],
      tokens: options.token === "last" ? { last: {} } : { all: {}, mean: true },
    },
  };
  let rows = 0;
  for await (const { activations } of client.captureActivations(request, options.call)) {
    if (!activations) continue;
    addRow(activations, sums);
    rows++;
  }
  if (rows !== request.inputs.length * sums.size) {
    throw new CommandError(`the server sent ${rows} rows for ${request.inputs.length} texts`);
  }
}

/** Even inputs are positive, odd ones negative. */
function addRow(chunk: ActivationChunk, sums: Map<number, Float64Array>): void {
  const row = decodeFloats(chunk.data, chunk.dtype as ActivationDType);
  const sign = chunk.inputIndex % 2 === 0 ? 1 : -1;
  let sum = sums.get(chunk.layer);
  if (!sum) {
    sum = new Float64Array(row.length);
    sums.set(chunk.layer, sum);
  }
  for (let i = 0; i < row.length; i++) sum[i] = (sum[i] ?? 0) + sign * (row[i] ?? 0);
}

/** Rows of length 1. Throws a CommandError for a row of zeros: it has no direction. */
export function normalized(rows: readonly LayerRow[]): LayerRow[] {
  return rows.map(({ layer, data }) => {
    const values = decodeFloats(data as Buffer, "D_TYPE_FLOAT32");
    const norm = Math.hypot(...values);
    if (norm === 0) throw new CommandError(`layer ${layer}: the texts of the pairs do not differ`);
    return { layer: layer as number, data: floatsToBytes(values.map((value) => value / norm)) };
  });
}
