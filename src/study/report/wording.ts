/** How the report writes numbers and names. */
import type { StudyCell } from "../records.js";
import type { Interval } from "../statistics/types.js";
import type { Group } from "./groups.js";
import type { ReportRow } from "./rows.js";

const MINUS = "−";

/** A signed number with so many digits after the point; a true minus sign. */
export function signed(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? MINUS : "+"}${text}`;
}

/** A magnitude as it was given: "+0.50", "−0.125". */
export function signedSize(value: number): string {
  const short = Number(value.toFixed(2)) === value;
  return signed(value, short ? 2 : Math.min(6, String(Math.abs(value)).length - 2));
}

/** A share as percent. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

/** A difference of shares as percentage points, signed. */
export function points(difference: number): string {
  return signed(100 * difference, 1);
}

export function range(low: string, high: string): string {
  return `${low} to ${high}`;
}

export function interval({ low, high }: Interval, write: (value: number) => string): string {
  return range(write(low), write(high));
}

export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}

export function pValue(p: number): string {
  return p < 0.001 ? "< 0.001" : p.toFixed(3);
}

export function fixed(value: number | null, digits: number): string {
  if (value === null || !Number.isFinite(value)) return "–";
  return value < 0 ? `${MINUS}${Math.abs(value).toFixed(digits)}` : value.toFixed(digits);
}

/** "4", "1, 3–5"; blocks count from 0. */
export function blocksText(layers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last && layer === last[1] + 1) last[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

/** Two decimals while they tell something, then whole numbers, then a power of ten. */
export function perplexityText(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value < 100) return value.toFixed(2);
  return value < 10_000 ? value.toFixed(0) : value.toExponential(1).replace("e+", "e");
}

/** "block 4", "blocks 1, 3–5". */
export function layersText(layers: readonly number[]): string {
  if (layers.length === 0) return "no block";
  return `${layers.length === 1 ? "block" : "blocks"} ${blocksText(layers)}`;
}

export function adapterText(adapter: string): string {
  return adapter === "" ? "base" : adapter;
}

/** "+0.50 norms", "projected out × 1". */
export function magnitudeText(cell: Pick<StudyCell, "operation" | "magnitude">): string {
  if (cell.operation === null) return "none";
  if (cell.operation === "PROJECT_OUT") return `projected out × ${cell.magnitude}`;
  return signedSize(cell.magnitude);
}

/** "code, block 4, +0.50". */
export function siteText(cell: StudyCell): string {
  if (cell.vector === null) return "unsteered";
  return `${cell.vector}, ${layersText(cell.layers)}, ${magnitudeText(cell)}`;
}

/** Class of an answer by the first judge of its kind; a sentiment as a word. */
export function verdictOf({ judgements }: ReportRow): string {
  const first = judgements[0];
  if (!first) return "not judged";
  if (first.class !== null) return first.class;
  if (first.score === null) return "not judged";
  return first.score > 0 ? "positive" : first.score < 0 ? "negative" : "neutral";
}

export function signText({ sign }: Pick<Group, "sign">): string {
  return sign > 0 ? "added" : "subtracted";
}

/** "code, block 4, added". */
export function groupText({ vector, layers, sign }: Group): string {
  return `${vector}, ${layersText(layers)}, ${signText({ sign })}`;
}
