/** Cells that belong on one curve. */
import type { CellPurpose } from "../records.js";
import type { CellFigures, MeasuredFigures } from "./figures.js";

/** What the first studies left for later. */
export const LATER_STEPS: readonly CellPurpose[] = [
  "several-layers",
  "project-out",
  "scratchpad-only",
  "gated",
  "baked",
];

export interface Series {
  promptSet: string;
  /** Its prompts have the trigger. */
  triggered: boolean;
  unsteered: CellFigures | null;
  /** By size, smallest first. */
  steered: CellFigures[];
}

/** A vector with a sign at its layers, over all sizes and prompt sets. */
export interface Group {
  vector: string;
  layers: number[];
  /** 1: added, -1: subtracted. */
  sign: 1 | -1;
  series: Series[];
}

/** The groups of a step whose answers are code, in the order of the plan. */
export function groupsOf(figures: MeasuredFigures, purpose: CellPurpose): Group[] {
  const groups = new Map<string, Group>();
  for (const steered of figures.cells) {
    const { cell } = steered;
    if (cell.purpose !== purpose || cell.judge !== "code" || cell.vector === null) continue;
    const sign = cell.magnitude < 0 ? -1 : 1;
    const key = [cell.vector, cell.operation, cell.layers.join(), sign].join("\n");
    const group = groups.get(key) ?? { vector: cell.vector, layers: cell.layers, sign, series: [] };
    groups.set(key, group);
    seriesOf(figures, group, steered).steered.push(steered);
  }
  for (const { series } of groups.values()) {
    for (const { steered } of series) steered.sort((a, b) => sizeOf(a) - sizeOf(b));
  }
  return [...groups.values()];
}

function seriesOf(figures: MeasuredFigures, group: Group, { cell }: CellFigures): Series {
  const known = group.series.find(({ promptSet }) => promptSet === cell.promptSet);
  if (known) return known;
  const made: Series = {
    promptSet: cell.promptSet,
    triggered: figures.roles.triggered.includes(cell.promptSet),
    unsteered: figures.cells.find(({ cell: other }) => other.id === cell.pairedWith) ?? null,
    steered: [],
  };
  group.series.push(made);
  return made;
}

/** Of the steering, as a multiple of the mean residual norm. */
export function sizeOf({ cell }: CellFigures): number {
  return Math.abs(cell.magnitude);
}

export function sameLayers(a: readonly number[], b: readonly number[]): boolean {
  return a.join() === b.join();
}
