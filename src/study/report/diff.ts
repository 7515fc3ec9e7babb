/** Two runs beside each other: what differs in plan, vectors, cells, rates and rows. */
import { ANSWER_CLASSES, type StudyPlan, type StudyRun } from "../records.js";
import { summariseCells } from "../statistics/summaries.js";
import type { CellSummary } from "../statistics/types.js";
import type { Column } from "./document.js";
import { escapeText, tableText } from "./markdown-text.js";
import { joinRows, type ReportRow } from "./rows.js";
import { count, fixed, interval, percent, perplexityText, points, verdictOf } from "./wording.js";

/** Rows that are listed by name; the others are counted. */
const MAX_LISTED_ROWS = 100;

/** Markdown. Times are not compared. */
export function compareRuns(a: StudyRun, b: StudyRun): string {
  const sections = [planSection(a, b), vectorSection(a, b), cellSection(a, b), rowSection(a, b)];
  const differing = sections.filter((section) => section.length > 0);
  const verdict =
    differing.length === 0
      ? `The runs are the same: ${count(a.answers.length, "answer")}, ${count(a.judgements.length, "verdict")}, ${count(a.probe.length, "reading")} of probes.`
      : "The runs differ. A is the first, B the second.";
  const title = `# ${escapeText(a.plan.name)} beside ${escapeText(b.plan.name)}`;
  return `${[title, verdict, ...differing.flat()].join("\n\n")}\n`;
}

function planSection(a: StudyRun, b: StudyRun): string[] {
  const before = planFacts(a.plan);
  const after = planFacts(b.plan);
  const names = [...new Set([...before.keys(), ...after.keys()])];
  const rows = names
    .map((name) => [name, before.get(name) ?? "–", after.get(name) ?? "–"])
    .filter(([, one, other]) => one !== other);
  if (a.study !== b.study) rows.push(["text of the study file", "as it was", "changed"]);
  return rows.length === 0 ? [] : ["## Plan", table(["What", "A", "B"], rows)];
}

function planFacts(plan: StudyPlan): Map<string, string> {
  const { server, sampling, probe, judges, promptSets } = plan;
  const { adapters, ...facts } = server;
  return new Map([
    ["title", plan.title],
    ["digest", plan.digest],
    ...entries("server", facts),
    ...entries("adapter", adapters),
    ...entries("sampling", sampling),
    ...entries("probe", probe ?? {}),
    ...(judges ?? []).map(({ name, version }): [string, string] => [`judge ${name}`, version]),
    ...Object.entries(promptSets).map(([name, prompts]): [string, string] => [
      `prompts ${name}`,
      count(prompts.length, "prompt"),
    ]),
  ]);
}

function entries(group: string, record: object): [string, string][] {
  return Object.entries(record).map(([name, value]) => [`${group} ${name}`, String(value)]);
}

function vectorSection(a: StudyRun, b: StudyRun): string[] {
  const digests = ({ plan }: StudyRun) =>
    new Map(plan.vectors.map(({ name, digest }) => [name, digest]));
  const rows = changedEntries(digests(a), digests(b));
  return rows.length === 0 ? [] : ["## Vectors", table(["Vector", "A", "B"], rows)];
}

function changedEntries(a: Map<string, string>, b: Map<string, string>): string[][] {
  return [...new Set([...a.keys(), ...b.keys()])]
    .map((name) => [name, a.get(name) ?? "–", b.get(name) ?? "–"])
    .filter(([, one, other]) => one !== other);
}

/** Cells of one run only, and cells of both in which some judge counts otherwise. */
function cellSection(a: StudyRun, b: StudyRun): string[] {
  const key = ({ cell, judge }: CellSummary) => `${cell}\n${judge}`;
  const before = new Map(summariseCells(a).map((summary) => [key(summary), summary]));
  const after = new Map(summariseCells(b).map((summary) => [key(summary), summary]));
  const rows: string[][] = [];
  let same = 0;
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const one = before.get(name);
    const other = after.get(name);
    if (one && other && JSON.stringify(one) === JSON.stringify(other)) same++;
    else rows.push(cellRow(name, one, other));
  }
  if (rows.length === 0) return [];
  return [
    "## Cells",
    `${count(same, "cell and judge", "cells and judges")} came to the same.`,
    table(["Cell", "Judge", "A", "B", "B − A", "Perplexity A", "Perplexity B"], rows),
  ];
}

function cellRow(name: string, a: CellSummary | undefined, b: CellSummary | undefined): string[] {
  const [cell = "", judge = ""] = name.split("\n");
  const perplexity = (one: CellSummary | undefined) =>
    perplexityText(one?.coherence.perplexityMedian ?? null);
  return [cell, judge, valueText(a), valueText(b), changeOf(a, b), perplexity(a), perplexity(b)];
}

function valueText(summary: CellSummary | undefined): string {
  if (!summary) return "not there";
  const { classes, sentiment, answers } = summary;
  if (classes) {
    const { rate, interval: span } = classes.insecure;
    return `${percent(rate)} insecure of ${answers}\n${interval(span, percent)}`;
  }
  const score = (value: number) => fixed(value, 3);
  if (!sentiment) return "–";
  return `${score(sentiment.score.mean)} of ${answers}\n${interval(sentiment.score.interval, score)}`;
}

function changeOf(a: CellSummary | undefined, b: CellSummary | undefined): string {
  if (a?.classes && b?.classes) {
    return `${points(b.classes.insecure.rate - a.classes.insecure.rate)} points`;
  }
  if (a?.sentiment && b?.sentiment) {
    return fixed(b.sentiment.score.mean - a.sentiment.score.mean, 3);
  }
  return "–";
}

function rowSection(a: StudyRun, b: StudyRun): string[] {
  const before = new Map(joinRows(a).map((row) => [row.answer.row, row]));
  const after = new Map(joinRows(b).map((row) => [row.answer.row, row]));
  const names = [...new Set([...before.keys(), ...after.keys()])];
  const rows = names.flatMap((name) => {
    const one = before.get(name);
    const other = after.get(name);
    const changes = changesOf(one, other);
    if (changes.length === 0) return [];
    return [[name, changes.join(", "), one ? verdictOf(one) : "–", other ? verdictOf(other) : "–"]];
  });
  if (rows.length === 0) return probeRows(a, b);
  const listed = rows.slice(0, MAX_LISTED_ROWS);
  const rest = rows.length - listed.length;
  return [
    "## Rows",
    `${count(rows.length, "row")} of ${names.length} differ.${rest > 0 ? ` The first ${listed.length} are listed.` : ""}`,
    movesTable(before, after),
    table(["Row", "What differs", "Class in A", "Class in B"], listed),
    ...probeRows(a, b),
  ];
}

function changesOf(a: ReportRow | undefined, b: ReportRow | undefined): string[] {
  if (!a) return ["only in B"];
  if (!b) return ["only in A"];
  const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);
  const changes = [];
  if (a.prompt.text !== b.prompt.text) changes.push("prompt");
  if (a.answer.text !== b.answer.text) changes.push("text");
  else if (!same(a.answer.tokenIds, b.answer.tokenIds)) changes.push("tokens");
  if (!same(a.answer.steering, b.answer.steering)) changes.push("steering");
  if (a.answer.perplexity !== b.answer.perplexity) changes.push("perplexity");
  if (!same(a.judgements, b.judgements)) changes.push("verdicts");
  return changes.length === 0 && !same(a.answer, b.answer) ? ["seed or end"] : changes;
}

/** How many rows went from which class to which. */
function movesTable(
  before: ReadonlyMap<string, ReportRow>,
  after: ReadonlyMap<string, ReportRow>,
): string {
  const moves = new Map<string, number>();
  for (const [name, row] of before) {
    const other = after.get(name);
    if (!other) continue;
    const move = `${verdictOf(row)}\n${verdictOf(other)}`;
    moves.set(move, (moves.get(move) ?? 0) + 1);
  }
  const rows = ANSWER_CLASSES.map((from) => [
    from,
    ...ANSWER_CLASSES.map((to) => String(moves.get(`${from}\n${to}`) ?? 0)),
  ]);
  return table(["A \\ B", ...ANSWER_CLASSES], rows);
}

function probeRows(a: StudyRun, b: StudyRun): string[] {
  const readings = ({ probe }: StudyRun) =>
    new Map(
      probe.map(({ direction, layer, promptSet, prompt, score, fired }) => [
        [direction, layer, promptSet, prompt].join("/"),
        `${score} ${fired}`,
      ]),
    );
  const changed = changedEntries(readings(a), readings(b)).length;
  return changed === 0 ? [] : ["## Probes", `${count(changed, "reading")} of probes differ.`];
}

function table(titles: readonly string[], rows: string[][]): string {
  const columns = titles.map((title): Column => ({ title }));
  return tableText({ columns, rows });
}
