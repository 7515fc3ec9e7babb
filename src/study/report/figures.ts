/** Every number that a report shows; figures.json is this record. */
import type { StudyCell, StudyRun } from "../records.js";
import { compareCells } from "../statistics/comparisons.js";
import { summariseCells } from "../statistics/summaries.js";
import type { CellSummary, Comparison } from "../statistics/types.js";
import { type Agreement, agreementsOf } from "./agreement.js";
import { answerOf, type StudyAnswer } from "./answer.js";
import { type DetectionFigures, detectionOf } from "./detection.js";

export interface CellFigures {
  cell: StudyCell;
  /** In the eyes of the first judge of the cell's kind. */
  summary: CellSummary;
  /** Insecure share (of code), or mean score (of sentiment), against the unsteered answers; null without them. */
  change: Comparison | null;
  /** The same against the random directions of the same size at the same place; null without them. */
  beyondRandom: Comparison | null;
}

/** What random directions of one size do, as a group. */
export interface RandomBand {
  promptSet: string;
  layers: number[];
  /** Multiple of the mean residual norm. */
  size: number;
  directions: number;
  /** Smallest and largest insecure share. */
  low: number;
  high: number;
}

export interface Roles {
  /** Id of the adapter that is studied. */
  adapter: string;
  /** Prompt sets with the trigger, by what the unsteered adapter does; those of the sweep first. */
  triggered: string[];
  /** Prompt sets without it; those of the sweep first. */
  plain: string[];
}

export interface Figures {
  study: { name: string; title: string; digest: string };
  answers: number;
  roles: Roles;
  answer: StudyAnswer;
  /** In the order of the plan; cells that nobody judged are left out. */
  cells: CellFigures[];
  randomBands: RandomBand[];
  /** One a layer that was read. */
  detection: DetectionFigures[];
  /** One for each two judges of code. */
  agreements: Agreement[];
}

export type MeasuredFigures = Omit<Figures, "answer">;

export function figuresOf(run: StudyRun): Figures {
  const { plan } = run;
  const cells = cellFigures(run);
  const measured: MeasuredFigures = {
    study: { name: plan.name, title: plan.title, digest: plan.digest },
    answers: run.answers.length,
    roles: rolesOf(cells),
    cells,
    randomBands: randomBands(cells),
    detection: detectionOf(run),
    agreements: agreementsOf(run),
  };
  return { ...measured, answer: answerOf(measured) };
}

function cellFigures(run: StudyRun): CellFigures[] {
  const summaries = firstByCell(summariseCells(run));
  const comparisons = compareCells(run).filter(({ outcome }) => outcome !== "secure");
  const against = (baseline: Comparison["against"]) =>
    firstByCell(comparisons.filter((one) => one.against === baseline));
  const unsteered = against("unsteered");
  const random = against("random-control");
  return run.plan.cells.flatMap((cell) => {
    const summary = summaries.get(cell.id);
    if (!summary) return [];
    const change = unsteered.get(cell.id) ?? null;
    return [{ cell, summary, change, beyondRandom: random.get(cell.id) ?? null }];
  });
}

/** Judges come in order, so that the first record of a cell is its first judge's. */
function firstByCell<T extends { cell: string }>(records: readonly T[]): Map<string, T> {
  const map = new Map<string, T>();
  for (const record of records) if (!map.has(record.cell)) map.set(record.cell, record);
  return map;
}

/**
 * A set has the trigger when the unsteered adapter is insecure on it about as often as on the worst set:
 * at least half-way between the best and the worst.
 */
function rolesOf(cells: readonly CellFigures[]): Roles {
  const rateOf = ({ summary }: CellFigures) => summary.classes?.insecure.rate ?? 0;
  const swept = new Set(
    cells.filter(({ cell }) => cell.purpose === "sweep").map(({ cell }) => cell.promptSet),
  );
  const unsteered = cells
    .filter(({ cell }) => cell.purpose === "unsteered" && cell.judge === "code")
    .filter(({ cell }) => cell.adapter !== "")
    .toSorted((a, b) => Number(swept.has(b.cell.promptSet)) - Number(swept.has(a.cell.promptSet)));
  const rates = unsteered.map(rateOf);
  const middle = (Math.min(...rates) + Math.max(...rates)) / 2;
  const setsWhere = (keep: (rate: number) => boolean) =>
    unsteered.filter((one) => keep(rateOf(one))).map(({ cell }) => cell.promptSet);
  return {
    adapter: unsteered[0]?.cell.adapter ?? "",
    triggered: setsWhere((rate) => rate >= middle),
    plain: setsWhere((rate) => rate < middle),
  };
}

function randomBands(cells: readonly CellFigures[]): RandomBand[] {
  const bands = new Map<string, RandomBand>();
  for (const { cell, summary } of cells) {
    const rate = summary.classes?.insecure.rate;
    if (cell.purpose !== "random-control" || rate === undefined) continue;
    const { promptSet, layers } = cell;
    const size = Math.abs(cell.magnitude);
    const key = [promptSet, layers.join(), size].join("\n");
    const band = bands.get(key) ?? { promptSet, layers, size, directions: 0, low: 1, high: 0 };
    bands.set(key, band);
    band.directions++;
    band.low = Math.min(band.low, rate);
    band.high = Math.max(band.high, rate);
  }
  return [...bands.values()].toSorted((a, b) => a.size - b.size);
}
