/** A judge's words beside a reader's. */
import { ANSWER_CLASSES, type AnswerClass, type Judgement } from "../records.js";

export interface Labelled {
  row: string;
  label: AnswerClass;
}

/** A table in Markdown: labels down, the judge's classes across. */
export function confusionTable(
  title: string,
  labels: readonly Labelled[],
  judgements: readonly Judgement[],
): string {
  const classes = new Map(judgements.map((judgement) => [judgement.row, judgement.class]));
  const count = (label: AnswerClass, found: AnswerClass) =>
    labels.filter((one) => one.label === label && classes.get(one.row) === found).length;
  const lines = ANSWER_CLASSES.map((label) => {
    const total = labels.filter((one) => one.label === label).length;
    return [label, ...ANSWER_CLASSES.map((found) => count(label, found)), total];
  });
  const agreed = labels.filter(({ row, label }) => classes.get(row) === label).length;
  return [
    `| ${title}: label | ${ANSWER_CLASSES.join(" | ")} | all |`,
    `| --- |${" ---: |".repeat(ANSWER_CLASSES.length + 1)}`,
    ...lines.map((line) => `| ${line.join(" | ")} |`),
    "",
    `Agreement: ${agreed} of ${labels.length}.`,
  ].join("\n");
}
