/** Detection, the judges beside each other, sample answers. */
import { ANSWER_CLASSES } from "../../records.js";
import type { Agreement } from "../agreement.js";
import type { DetectionFigures } from "../detection.js";
import type { Block } from "../document.js";
import type { Figures } from "../figures.js";
import { rocPlot } from "../plots/roc.js";
import type { Samples } from "../samples.js";
import { count, fixed, interval, percent } from "../wording.js";
import { rateText } from "./cells.js";

export function detectionSection(figures: Figures): Block[] {
  const plot = rocPlot(figures);
  if (!plot) return [];
  const area = (value: number) => fixed(value, 3);
  return [
    { kind: "heading", level: 2, id: "detection", text: "Detection" },
    ...figures.detection.map((one): Block => ({ kind: "paragraph", text: inWords(one) })),
    {
      kind: "plot",
      plot,
      table: {
        kind: "table",
        fold: "The numbers",
        columns: [
          { title: "Block", number: true },
          { title: "Insecure prompts", number: true },
          { title: "Other prompts", number: true },
          { title: "Area, probe", number: true },
          { title: "Area, best random direction", number: true },
          { title: "Random directions as good", number: true },
          { title: "Foreseen at the threshold", number: true },
          { title: "False alarms there", number: true },
        ],
        rows: figures.detection.map(({ layer, positives, negatives, probe, random }) => [
          String(layer),
          String(positives),
          String(negatives),
          `${area(probe.auroc)}${probe.interval ? `\n${interval(probe.interval, area)}` : ""}`,
          random ? area(random.best) : "–",
          random ? percent(random.shareAsFar) : "–",
          rateText(probe.fired?.insecure),
          rateText(probe.fired?.secure),
        ]),
      },
    },
  ];
}

function inWords({ layer, judge, positives, negatives, probe, random }: DetectionFigures): string {
  const parts = [
    `${count(positives, "prompt")} that the unsteered agent answers insecurely (says ${judge}), ${negatives} others.`,
    `At block ${layer} the probe's area under the curve is ${fixed(probe.auroc, 3)}.`,
  ];
  if (random) {
    parts.push(
      `Of ${count(random.directions, "random direction")} ${percent(random.shareAsFar)} do as well; the best reaches ${fixed(random.best, 3)}.`,
    );
  }
  if (probe.fired) {
    parts.push(
      `The threshold, calibrated on other texts, foresees ${percent(probe.fired.insecure.rate)} of insecure answers, with ` +
        `${percent(probe.fired.secure.rate)} false alarms.`,
    );
  }
  return parts.join(" ");
}

export function judgesSection({ agreements }: Figures): Block[] {
  if (agreements.length === 0) return [];
  return [
    { kind: "heading", level: 2, id: "judges", text: "Judges" },
    ...agreements.flatMap(agreementBlocks),
  ];
}

function agreementBlocks({ first, second, answers, counts, same, kappa }: Agreement): Block[] {
  const agreed =
    `${first} and ${second} put ${percent(same.rate)} (${interval(same.interval, percent)}) of ${count(answers, "answer")} in the same class` +
    `${kappa === null ? "" : `; Cohen's kappa ${fixed(kappa, 3)}`}. Figures elsewhere are the first judge's.`;
  return [
    { kind: "paragraph", text: agreed },
    {
      kind: "table",
      columns: [
        { title: `${first} says` },
        ...ANSWER_CLASSES.map((kind) => ({ title: `${second}: ${kind}`, number: true })),
      ],
      rows: ANSWER_CLASSES.map((kind, index) => [kind, ...(counts[index] ?? []).map(String)]),
    },
  ];
}

export function samplesSection({ answers }: Figures, samples: Samples): Block[] {
  if (!samples.rows.some(({ paired }) => paired >= 0)) return [];
  return [
    { kind: "heading", level: 2, id: "answers", text: "Answers side by side" },
    {
      kind: "paragraph",
      text:
        `Up to ${count(samples.perCell, "answer")} a cell, the same prompts in every cell of a prompt set: those whose digest, keyed by the ` +
        `plan's, comes first. None was selected by what it says. All ${count(answers, "row")} are in rows.jsonl.`,
    },
    { kind: "samples" },
  ];
}
