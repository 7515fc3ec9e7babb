/** The first screen: the answer, and the table that it rests on. */
import { type Candidate, candidatesOf, restOf } from "../answer.js";
import type { Block, Column } from "../document.js";
import type { Figures } from "../figures.js";
import { layersText, percent, perplexityText, range, signText } from "../wording.js";
import { changeText, pText, rateText, shareText } from "./cells.js";

export function answerSection(figures: Figures): Block[] {
  const { headline, sentences, rules } = figures.answer;
  if (sentences.length === 0) return [{ kind: "headline", text: headline }];
  return [
    { kind: "headline", text: headline },
    { kind: "list", items: sentences },
    { kind: "table", columns: COLUMNS, rows: keyRows(figures) },
    {
      kind: "paragraph",
      note: true,
      text:
        "Shares are of all answers, whatever their class. Below each stands its 95% interval: Wilson's for shares, a bootstrap over tasks for " +
        "changes. p is two-sided, after Holm's correction over the family. The last four columns are the conditions of the answer; ? was not " +
        "measured.",
    },
    { kind: "list", items: rules, fold: "The conditions" },
    {
      kind: "paragraph",
      note: true,
      text: "These findings are about this checkpoint, this adapter, these prompts and these judges; they say nothing of other models.",
    },
  ];
}

const COLUMNS: Column[] = [
  { title: "Vector" },
  { title: "Size", number: true },
  { title: "Insecure, with trigger", number: true },
  { title: "Change, points", number: true },
  { title: "p (Holm)", number: true },
  { title: "Random directions", number: true },
  { title: "Insecure, without", number: true },
  { title: "Perplexity", number: true },
  { title: "Parses", number: true },
  { title: "Fewer" },
  { title: "Beyond random" },
  { title: "Coherent" },
  { title: "Harmless" },
];

function keyRows(figures: Figures): string[][] {
  const rest = restOf(figures)?.summary;
  const plain = restOf(figures, figures.roles.plain[0] ?? "")?.summary;
  const unsteered = [
    "unsteered",
    "0",
    rateText(rest?.classes?.insecure),
    ...["–", "–", "–"],
    shareText(plain?.classes?.insecure),
    perplexityText(rest?.coherence.perplexityMedian ?? null),
    shareText(rest?.parsed),
    ...["", "", "", ""],
  ];
  return [unsteered, ...candidatesOf(figures).map(candidateRow)];
}

const mark = (met: boolean | null) => (met === null ? "?" : met ? "✓" : "✗");

function candidateRow({ group, size, triggered, plain, random, conditions }: Candidate): string[] {
  const { summary, change } = triggered;
  return [
    `${group.vector}, ${signText(group)}\n${layersText(group.layers)}`,
    String(size),
    rateText(summary.classes?.insecure),
    changeText(change),
    pText(change),
    random ? range(percent(random.low), percent(random.high)) : "–",
    shareText(plain?.summary.classes?.insecure),
    perplexityText(summary.coherence.perplexityMedian),
    shareText(summary.parsed),
    mark(conditions.fewer),
    mark(conditions.beyondRandom),
    mark(conditions.coherent),
    mark(conditions.harmless),
  ];
}
