/** Every row of a run as JSON lines and as CSV. */
import { stringify } from "csv-stringify/sync";
import {
  type Answer,
  type Judgement,
  rowId,
  type StudyCell,
  type StudyPrompt,
  type StudyRun,
} from "../records.js";

/** One answer with all that is known of it. */
export interface ReportRow {
  answer: Answer;
  cell: StudyCell;
  prompt: StudyPrompt;
  /** Row of the unsteered answer to the same prompt and draw; null for an unsteered answer. */
  pairedRow: string | null;
  /** In the order of the judges. */
  judgements: Judgement[];
}

/** Joins the records of a run, in the order of its answers. Throws an Error that names what is missing. */
export function joinRows(run: StudyRun): ReportRow[] {
  const cells = new Map(run.plan.cells.map((cell) => [cell.id, cell]));
  const prompts = new Map(
    Object.entries(run.plan.promptSets).map(([name, set]) => [
      name,
      new Map(set.map((prompt) => [prompt.id, prompt])),
    ]),
  );
  const judgements = groupByRow(run.judgements);
  return run.answers.map((answer) => {
    const cell = cells.get(answer.cell);
    if (!cell) throw new Error(`answer ${answer.row}: the plan has no cell "${answer.cell}"`);
    const prompt = prompts.get(cell.promptSet)?.get(answer.prompt);
    if (!prompt) {
      throw new Error(`answer ${answer.row}: no prompt "${answer.prompt}" in "${cell.promptSet}"`);
    }
    return {
      answer,
      cell,
      prompt,
      pairedRow: cell.pairedWith ? rowId(cell.pairedWith, answer.prompt, answer.draw) : null,
      judgements: judgements.get(answer.row) ?? [],
    };
  });
}

function groupByRow(judgements: readonly Judgement[]): Map<string, Judgement[]> {
  const groups = new Map<string, Judgement[]>();
  for (const judgement of judgements) {
    const group = groups.get(judgement.row);
    if (group) group.push(judgement);
    else groups.set(judgement.row, [judgement]);
  }
  return groups;
}

/** One object a line; what the row's cell and prompt say stands in it, so that the file is enough alone. */
export function rowsAsJsonLines(rows: readonly ReportRow[]): string {
  const lines = rows.map(({ answer, cell, prompt, pairedRow, judgements }) =>
    JSON.stringify({
      row: answer.row,
      cell: cell.id,
      purpose: cell.purpose,
      adapter: cell.adapter,
      promptSet: cell.promptSet,
      vector: cell.vector,
      operation: cell.operation,
      layers: cell.layers,
      magnitude: cell.magnitude,
      pairedRow,
      prompt: prompt.id,
      task: prompt.task,
      kind: prompt.kind,
      promptText: prompt.text,
      draw: answer.draw,
      seed: answer.seed,
      text: answer.text,
      tokenIds: answer.tokenIds,
      finishReason: answer.finishReason,
      perplexity: answer.perplexity,
      steering: answer.steering,
      judgements: judgements.map(({ row: _, ...judgement }) => judgement),
    }),
  );
  return `${lines.join("\n")}\n`;
}

/**
 * RFC 4180, UTF-8, one line of names. Texts that a spreadsheet would run as a formula begin with an
 * apostrophe; `rows.jsonl` has them as they are, and the token ids.
 */
export function rowsAsCsv(rows: readonly ReportRow[]): string {
  const judges = [...new Set(rows.flatMap((row) => row.judgements.map(({ judge }) => judge)))];
  const judged = judges.flatMap((judge) => [
    `${judge}_class`,
    `${judge}_score`,
    `${judge}_findings`,
  ]);
  const header = [...ROW_COLUMNS, ...judged, "prompt_text", "text"];
  const records = rows.map((row) => [
    ...rowFields(row),
    ...judges.flatMap((judge) => {
      const judgement = row.judgements.find((one) => one.judge === judge);
      return [judgement?.class, judgement?.score, judgement?.findings.join(" ")];
    }),
    row.prompt.text,
    row.answer.text,
  ]);
  return stringify([header, ...records], {
    escape_formulas: true,
    // A lone carriage return would else stand unquoted.
    quoted_string: true,
    record_delimiter: "\r\n",
  });
}

const ROW_COLUMNS = [
  "row",
  "cell",
  "purpose",
  "adapter",
  "prompt_set",
  "vector",
  "operation",
  "layers",
  "magnitude",
  "paired_row",
  "prompt",
  "task",
  "kind",
  "draw",
  "seed",
  "finish_reason",
  "tokens",
  "perplexity",
  "steering_digests",
  "steered_tokens",
  "mean_delta_ratio",
  "gate_fired",
  "gate_evaluations",
];

function rowFields({ answer, cell, prompt, pairedRow }: ReportRow): unknown[] {
  const sum = (value: (steering: Answer["steering"][number]) => number) =>
    answer.steering.reduce((total, steering) => total + value(steering), 0);
  return [
    answer.row,
    cell.id,
    cell.purpose,
    cell.adapter,
    cell.promptSet,
    cell.vector,
    cell.operation,
    cell.layers.join(" "),
    cell.magnitude,
    pairedRow,
    prompt.id,
    prompt.task,
    prompt.kind,
    answer.draw,
    answer.seed,
    answer.finishReason,
    answer.tokenIds.length,
    answer.perplexity,
    answer.steering.map(({ digest }) => digest).join(" "),
    sum(({ promptTokens, generatedTokens }) => promptTokens + generatedTokens),
    answer.steering[0]?.meanDeltaRatio,
    sum(({ gateFired }) => gateFired),
    sum(({ gateEvaluations }) => gateEvaluations),
  ];
}
