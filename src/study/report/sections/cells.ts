/** Tables of cells. */
import { ANSWER_CLASSES } from "../../records.js";
import type { Rate } from "../../statistics/types.js";
import type { Column, TableBlock } from "../document.js";
import type { CellFigures } from "../figures.js";
import {
  adapterText,
  fixed,
  interval,
  percent,
  perplexityText,
  points,
  pValue,
  siteText,
} from "../wording.js";

export function rateText(rate: Rate | null | undefined): string {
  return rate ? `${percent(rate.rate)}\n${interval(rate.interval, percent)}` : "–";
}

export function shareText(rate: Rate | null | undefined): string {
  return rate ? percent(rate.rate) : "–";
}

/** How far a cell's insecurity lies from the unsteered one's. */
export function changeText(change: CellFigures["change"]): string {
  return change ? `${points(change.difference)}\n${interval(change.interval, points)}` : "–";
}

export function pText(change: CellFigures["change"]): string {
  return change ? pValue(change.pHolm) : "–";
}

const numbers = (titles: string[]): Column[] => titles.map((title) => ({ title, number: true }));

const CODE_COLUMNS: Column[] = [
  { title: "Model" },
  { title: "Steering" },
  { title: "Prompts" },
  ...numbers(["Answers", "Insecure", "Change, points", "p (Holm)"]),
  ...numbers(["Beyond random, points", "p (Holm)"]),
  ...numbers(["Perplexity", "Parses", "Repetition", "Secure", "Unparsable", "Refused", "Off-task"]),
];

/** All that is known of cells whose answers are code. */
export function codeTable(cells: readonly CellFigures[], fold?: string): TableBlock {
  const rows = cells.map(({ cell, summary, change, beyondRandom }) => {
    const { classes, coherence } = summary;
    const others = ANSWER_CLASSES.filter((kind) => kind !== "insecure");
    return [
      adapterText(cell.adapter),
      siteText(cell),
      cell.promptSet,
      String(summary.answers),
      rateText(classes?.insecure),
      changeText(change),
      pText(change),
      changeText(beyondRandom),
      pText(beyondRandom),
      perplexityText(coherence.perplexityMedian),
      shareText(summary.parsed),
      coherence.repetition === null ? "–" : percent(coherence.repetition),
      ...others.map((kind) => String(classes?.[kind].count ?? "–")),
    ];
  });
  return { kind: "table", columns: CODE_COLUMNS, rows, ...(fold ? { fold } : {}) };
}

const SENTIMENT_COLUMNS: Column[] = [
  { title: "Model" },
  { title: "Steering" },
  { title: "Prompts" },
  ...numbers(["Answers", "Mean score", "Positive", "Change", "p (Holm)"]),
  ...numbers(["Perplexity", "Repetition"]),
];

export function sentimentTable(cells: readonly CellFigures[], fold?: string): TableBlock {
  const score = (value: number) => fixed(value, 2);
  const rows = cells.map(({ cell, summary, change }) => {
    const { sentiment, coherence } = summary;
    const mean = sentiment?.score;
    return [
      adapterText(cell.adapter),
      siteText(cell),
      cell.promptSet,
      String(summary.answers),
      mean ? `${score(mean.mean)}\n${interval(mean.interval, score)}` : "–",
      shareText(sentiment?.positive),
      change ? `${score(change.difference)}\n${interval(change.interval, score)}` : "–",
      pText(change),
      perplexityText(coherence.perplexityMedian),
      coherence.repetition === null ? "–" : percent(coherence.repetition),
    ];
  });
  return { kind: "table", columns: SENTIMENT_COLUMNS, rows, ...(fold ? { fold } : {}) };
}
