/** Each steered cell beside what it is compared with, over the same prompts and draws. */
import type { StudyCell, StudyRun } from "../records.js";
import { crossedInterval, meanInterval } from "./bootstrap.js";
import { mean } from "./coherence.js";
import { holm, mcnemar, signFlip } from "./paired-tests.js";
import { groupBy, indexRun, type JudgedRow, type RunIndex } from "./run-index.js";
import { type Comparison, GROUP_OF_PURPOSE } from "./types.js";

type Outcome = Comparison["outcome"];
type Untested = Omit<Comparison, "pHolm">;

const MAGNITUDE_TOLERANCE = 1e-9;

/**
 * For each steered cell, judge and outcome: against its unsteered pair; and, where random directions acted
 * at the same place and size, against these, pooled. In the order of the plan.
 */
export function compareCells(run: StudyRun): Comparison[] {
  const index = indexRun(run);
  const made: Untested[] = [];
  for (const cell of run.plan.cells) {
    for (const judge of index.judges) {
      for (const outcome of outcomesOf(index.rows(cell.id, judge))) {
        if (cell.pairedWith !== null) {
          made.push(...compare(index, cell, [cell.pairedWith], "unsteered", judge, outcome));
        }
        const controls = controlsOf(cell, run.plan.cells);
        if (controls.length > 0) {
          made.push(...compare(index, cell, controls, "random-control", judge, outcome));
        }
      }
    }
  }
  return corrected(made);
}

/** Comparisons that one correction spans: one judge, one outcome, one baseline, one group of purposes. */
export function familyOf(
  cell: StudyCell,
  { against, judge, outcome }: Pick<Comparison, "against" | "judge" | "outcome">,
): string {
  const group = cell.purpose === "unsteered" ? "controls" : GROUP_OF_PURPOSE[cell.purpose];
  return `${group}/${outcome}/${against}/${judge}`;
}

function outcomesOf(rows: readonly JudgedRow[]): Outcome[] {
  const first = rows[0];
  if (first === undefined) return [];
  return first.judgement.class === null ? ["sentiment"] : ["insecure", "secure"];
}

/** Random directions of the same model, prompts, operation, layers and size; their sign is chance. */
function controlsOf(cell: StudyCell, cells: readonly StudyCell[]): string[] {
  if (cell.vector === null || cell.purpose === "random-control") return [];
  const isControl = (other: StudyCell) =>
    other.purpose === "random-control" &&
    other.adapter === cell.adapter &&
    other.promptSet === cell.promptSet &&
    other.judge === cell.judge &&
    other.operation === cell.operation &&
    other.layers.join() === cell.layers.join() &&
    Math.abs(Math.abs(other.magnitude) - Math.abs(cell.magnitude)) < MAGNITUDE_TOLERANCE;
  return cells.filter(isControl).map(({ id }) => id);
}

function outcomeOf({ judgement }: JudgedRow, outcome: Outcome): number {
  if (outcome === "sentiment") return judgement.score ?? 0;
  return judgement.class === outcome ? 1 : 0;
}

interface Pair {
  task: string;
  value: number;
  baselines: number[];
}

function pairsOf(
  index: RunIndex,
  cell: string,
  baselines: readonly string[],
  judge: string,
  outcome: Outcome,
): Pair[] {
  const keyOf = ({ answer }: JudgedRow) => `${answer.prompt}#${answer.draw}`;
  const columns = baselines.map(
    (id) => new Map(index.rows(id, judge).map((row) => [keyOf(row), outcomeOf(row, outcome)])),
  );
  return index.rows(cell, judge).flatMap((row) => {
    const others = columns.map((column) => column.get(keyOf(row)));
    const known = others.filter((value) => value !== undefined);
    if (known.length < others.length) return [];
    return [{ task: row.prompt.task, value: outcomeOf(row, outcome), baselines: known }];
  });
}

const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0);

/** Empty when cell and baselines share no prompt. */
function compare(
  index: RunIndex,
  cell: StudyCell,
  baselines: string[],
  against: Comparison["against"],
  judge: string,
  outcome: Outcome,
): Untested[] {
  const pairs = pairsOf(index, cell.id, baselines, judge, outcome);
  if (pairs.length === 0) return [];
  const clusters = [...groupBy(pairs, ({ task }) => task).values()].map((of) => ({
    sum: sumOf(of.map(({ value }) => value)),
    baselineSums: baselines.map((_, place) => sumOf(of.map((pair) => pair.baselines[place] ?? 0))),
    size: of.length,
  }));
  const differences = clusters.map((cluster) => ({
    sum: cluster.sum - mean(cluster.baselineSums),
    size: cluster.size,
  }));
  const value = mean(pairs.map((pair) => pair.value));
  const baselineValue = mean(pairs.map((pair) => mean(pair.baselines)));
  const onePairATask = clusters.length === pairs.length;
  const tested = testOf(
    pairs,
    differences.map(({ sum }) => sum),
    outcome !== "sentiment" && baselines.length === 1,
    onePairATask,
  );
  return [
    {
      cell: cell.id,
      judge,
      against,
      baselines,
      outcome,
      pairs: pairs.length,
      tasks: clusters.length,
      value,
      baselineValue,
      difference: value - baselineValue,
      interval: baselines.length === 1 ? meanInterval(differences) : crossedInterval(clusters),
      ...tested,
      family: familyOf(cell, { against, judge, outcome }),
    },
  ];
}

function testOf(
  pairs: readonly Pair[],
  differences: readonly number[],
  isYesOrNo: boolean,
  onePairATask: boolean,
): Pick<Comparison, "discordant" | "test" | "p" | "pExact"> {
  const countPairs = (value: number, other: number) =>
    pairs.filter((pair) => pair.value === value && pair.baselines[0] === other).length;
  const discordant = isYesOrNo ? { here: countPairs(1, 0), there: countPairs(0, 1) } : null;
  if (discordant !== null && onePairATask) {
    const { exact, midP } = mcnemar(discordant.here, discordant.there);
    return { discordant, test: "mcnemar-mid-p", p: midP, pExact: exact };
  }
  return { discordant, test: "sign-flip", p: signFlip(differences), pExact: null };
}

function corrected(comparisons: readonly Untested[]): Comparison[] {
  const adjusted = new Map<Untested, number>();
  for (const family of groupBy(comparisons, ({ family }) => family).values()) {
    const values = holm(family.map(({ p }) => p));
    for (const [place, comparison] of family.entries())
      adjusted.set(comparison, values[place] ?? 1);
  }
  return comparisons.map((one) => ({ ...one, pHolm: adjusted.get(one) ?? 1 }));
}
