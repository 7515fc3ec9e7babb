/** Numbers, ranges and layer lists as they are written on the command line. */
import { UsageError } from "../exit.js";

/** A decimal number: `4`, `-0.5`, `1e-3`. */
export const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const LAYERS = /^\d+(-\d+)?(,\d+(-\d+)?)*$/;
/** No model has more blocks; keeps `0-4000000000` from filling the memory. */
const MAX_LAYER = 4095;

export function parseNumber(text: string): number {
  const value = Number(text);
  if (!DECIMAL.test(text) || !Number.isFinite(value)) {
    throw new UsageError(`"${text}" is not a number`);
  }
  return value;
}

export function parseInteger(text: string, least = 0): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value > 0xffff_ffff || value < least) {
    throw new UsageError(`"${text}" is not a whole number of at least ${least}`);
  }
  return value;
}

/** A 64-bit seed, as a decimal string. */
export function parseSeed(text: string): string {
  if (!/^\d{1,20}$/.test(text) || BigInt(text) >= 1n << 64n) {
    throw new UsageError(`"${text}" is not a whole number from 0 to 2^64 - 1`);
  }
  return text;
}

/** `3-5,7` as [3, 4, 5, 7]; null when it is no list of layers. */
export function matchLayers(text: string): number[] | null {
  if (!LAYERS.test(text)) return null;
  const layers = new Set<number>();
  for (const part of text.split(",")) {
    const [first = Number.NaN, last = first] = part.split("-").map(Number);
    if (last < first || last > MAX_LAYER) return null;
    for (let layer = first; layer <= last; layer++) layers.add(layer);
  }
  return [...layers].sort((a, b) => a - b);
}

export function parseLayers(text: string): number[] {
  const layers = matchLayers(text);
  if (!layers) throw new UsageError(`"${text}" is not a list of layers such as 3-5,7`);
  return layers;
}

/** [3, 4, 5, 7] as `3-5,7`. */
export function formatLayers(layers: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < layers.length; ) {
    let j = i;
    while (layers[j + 1] === (layers[j] as number) + 1) j++;
    parts.push(i === j ? `${layers[i]}` : `${layers[i]}-${layers[j]}`);
    i = j + 1;
  }
  return parts.join(",");
}

const RANGE = /^\[(-?\d+)?\.\.(-?\d+)?\]$/;

/** `[2..5]`, `[-3..]`, `[..4]`: start inclusive, end exclusive; null when it is no range. */
export function matchTokenRange(text: string): { start?: number; end?: number } | null {
  const match = RANGE.exec(text);
  if (!match) return null;
  const [, start, end] = match;
  return {
    ...(start !== undefined && { start: Number(start) }),
    ...(end !== undefined && { end: Number(end) }),
  };
}
