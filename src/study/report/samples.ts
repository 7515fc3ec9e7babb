/** The answers that the report's page holds: the same prompts of every cell, drawn and not selected. */
import { createHash } from "node:crypto";
import { CELL_PURPOSES, type StudyCell, type StudyRun } from "../records.js";
import { visible } from "./markup.js";
import type { ReportRow } from "./rows.js";
import { adapterText, layersText, magnitudeText, verdictOf } from "./wording.js";

/** Rows that a page can hold without growing slow; what is left is in rows.jsonl. */
const MAX_ROWS = 2400;
/** Answers a cell, whatever the number of cells. */
const MIN_PER_CELL = 2;
const MAX_PER_CELL = 20;

export interface SampleCell {
  purpose: string;
  adapter: string;
  promptSet: string;
  vector: string;
  layers: string;
  magnitude: string;
}

export interface SampleRow {
  row: string;
  /** Index in `cells`. */
  cell: number;
  /** Index in `prompts`. */
  prompt: number;
  /** Class of the answer, or its sentiment. */
  verdict: string;
  notes: string[];
  text: string;
  /** Index in `rows` of the unsteered answer; -1 for an unsteered answer. */
  paired: number;
}

export interface SampleFilter {
  key: keyof SampleCell | "verdict";
  label: string;
  options: string[];
}

export interface Samples {
  /** Answers a cell; fewer where the prompt set is smaller. */
  perCell: number;
  cells: SampleCell[];
  prompts: string[];
  rows: SampleRow[];
  filters: SampleFilter[];
}

export function drawSamples(run: StudyRun, rows: readonly ReportRow[]): Samples {
  const cellCount = run.plan.cells.length;
  const perCell = Math.max(
    MIN_PER_CELL,
    Math.min(MAX_PER_CELL, Math.floor(MAX_ROWS / Math.max(1, cellCount))),
  );
  const drawn = drawPrompts(run, perCell);
  const chosen = rows.filter(({ answer, cell }) =>
    drawn.has(promptKey(cell.promptSet, answer.prompt, answer.draw)),
  );
  const cells = run.plan.cells.map(describeCell);
  const cellIndex = new Map(run.plan.cells.map((cell, index) => [cell.id, index]));
  const rowIndex = new Map(chosen.map(({ answer }, index) => [answer.row, index]));
  const promptIndex = new Map<string, number>();
  const sampled = chosen.map((row): SampleRow => {
    const text = visible(row.prompt.text);
    if (!promptIndex.has(text)) promptIndex.set(text, promptIndex.size);
    return {
      row: row.answer.row,
      cell: cellIndex.get(row.cell.id) ?? -1,
      prompt: promptIndex.get(text) ?? -1,
      verdict: verdictOf(row),
      notes: notesOf(row),
      text: visible(row.answer.text),
      paired: row.pairedRow === null ? -1 : (rowIndex.get(row.pairedRow) ?? -1),
    };
  });
  return {
    perCell,
    cells,
    prompts: [...promptIndex.keys()],
    rows: sampled,
    filters: filtersOf(cells, sampled),
  };
}

const promptKey = (set: string, prompt: string, draw: number) => `${set}/${prompt}#${draw}`;

/** Of each prompt set the prompts and draws whose digests, keyed by the plan's, come first. */
function drawPrompts({ plan }: StudyRun, perCell: number): Set<string> {
  const drawn = new Set<string>();
  for (const [set, prompts] of Object.entries(plan.promptSets)) {
    const keys = prompts.flatMap(({ id }) =>
      Array.from({ length: plan.sampling.draws }, (_, draw) => promptKey(set, id, draw)),
    );
    const lots = keys.map((key) => {
      const lot = createHash("sha256").update(`${plan.digest}\n${key}`).digest("hex");
      return { key, lot };
    });
    lots.sort((a, b) => (a.lot < b.lot ? -1 : 1));
    for (const { key } of lots.slice(0, perCell)) drawn.add(key);
  }
  return drawn;
}

function describeCell(cell: StudyCell): SampleCell {
  return {
    purpose: cell.purpose,
    adapter: adapterText(cell.adapter),
    promptSet: cell.promptSet,
    vector: cell.vector ?? "none",
    layers: layersText(cell.layers),
    magnitude: magnitudeText(cell),
  };
}

function notesOf({ answer, judgements }: ReportRow): string[] {
  const judged = judgements.map(({ judge, class: verdict, score, findings }) => {
    const word = verdict ?? (score === null ? "no verdict" : `score ${score.toFixed(2)}`);
    return `${judge}: ${word}${findings.length > 0 ? ` (${findings.join(", ")})` : ""}`;
  });
  const perplexity =
    answer.perplexity === null ? [] : [`perplexity ${answer.perplexity.toPrecision(3)}`];
  const cut = answer.finishReason === "LENGTH" ? ["cut at the token limit"] : [];
  return [[...judged, ...perplexity, ...cut].join(" · ")];
}

function filtersOf(cells: readonly SampleCell[], rows: readonly SampleRow[]): SampleFilter[] {
  const steered = rows.filter(({ paired }) => paired >= 0);
  const optionsOf = (value: (row: SampleRow) => string | undefined) => [
    ...new Set(steered.map(value).filter((option) => option !== undefined)),
  ];
  const ofCell = (key: keyof SampleCell, label: string): SampleFilter => ({
    key,
    label,
    options: optionsOf(({ cell }) => cells[cell]?.[key]),
  });
  const purposes = ofCell("purpose", "Step");
  const order = new Map<string, number>(CELL_PURPOSES.map((purpose, index) => [purpose, index]));
  purposes.options.sort((a, b) => (order.get(a) ?? 0) - (order.get(b) ?? 0));
  const magnitudes = ofCell("magnitude", "Magnitude");
  magnitudes.options.sort((a, b) => parseMagnitude(a) - parseMagnitude(b) || (a < b ? -1 : 1));
  return [
    purposes,
    ofCell("vector", "Vector"),
    magnitudes,
    ofCell("layers", "Block"),
    ofCell("promptSet", "Prompts"),
    ofCell("adapter", "Model"),
    {
      key: "verdict",
      label: "Class of the steered answer",
      options: optionsOf(({ verdict }) => verdict).sort(),
    },
  ];
}

const parseMagnitude = (text: string) => Number.parseFloat(text.replace("−", "-"));
