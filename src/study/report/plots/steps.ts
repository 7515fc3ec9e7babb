/** The later steps side by side: how far each moves insecurity, with and without the trigger. */
import type { CellFigures, Figures } from "../figures.js";
import { LATER_STEPS } from "../groups.js";
import { blocksText, points, signedSize } from "../wording.js";
import { cssColor } from "./colors.js";
import type { Layer } from "./marks.js";
import type { Panel, Plot } from "./plot.js";

const LINE_BREAK = " · ";

interface Bar {
  label: string;
  value: number;
  low: number;
  high: number;
}

export function stepsPlot(figures: Figures): Plot | null {
  const triggered = barsOf(figures, (set) => figures.roles.triggered.includes(set));
  const plain = barsOf(figures, (set) => figures.roles.plain.includes(set));
  if (triggered.length === 0) return null;
  return {
    id: "steps",
    title: "Change of insecurity against the unsteered model",
    caption:
      "Percentage points of insecure answers to the same prompts, with 95% intervals from a bootstrap clustered by task. Left of zero " +
      "is safer.",
    alternative: triggered
      .map(
        ({ label, value }) =>
          `${label.replace(LINE_BREAK, ", ")}: ${points(value)} points with the trigger.`,
      )
      .join(" "),
    legend: [
      { label: "with the trigger", color: "trigger", mark: "point" },
      { label: "without the trigger", color: "plain", mark: "point" },
    ],
    panels: [
      panelOf("With the trigger", triggered, "trigger"),
      ...(plain.length > 0 ? [panelOf("Without the trigger", plain, "plain")] : []),
    ],
  };
}

function barsOf(figures: Figures, wanted: (promptSet: string) => boolean): Bar[] {
  return figures.cells.flatMap((one) => {
    const { cell, change } = one;
    if (!change || !LATER_STEPS.includes(cell.purpose) || !wanted(cell.promptSet)) return [];
    return [{ label: labelOf(one), value: change.difference, ...change.interval }];
  });
}

/** Two lines: the step, and what acts where. */
function labelOf({ cell }: CellFigures): string {
  const how = cell.operation === "PROJECT_OUT" ? "" : ` ${signedSize(cell.magnitude)}`;
  return `${cell.purpose}${LINE_BREAK}${cell.vector}${how}, ${blocksText(cell.layers)}`;
}

function panelOf(title: string, bars: readonly Bar[], color: "trigger" | "plain"): Panel {
  const y = {
    field: "label",
    type: "nominal" as const,
    sort: bars.map(({ label }) => label),
    title: null,
    axis: { labelExpr: `split(datum.label, "${LINE_BREAK}")`, labelLimit: 160, grid: false },
  };
  const x = (field: string) => ({ field, type: "quantitative" as const });
  const data = { values: [...bars] };
  const layers: Layer[] = [
    {
      data,
      mark: { type: "rule", color: cssColor(color), strokeWidth: 1.5, opacity: 0.75 },
      encoding: {
        y,
        x: {
          ...x("low"),
          title: "Change (percentage points)",
          scale: { domain: [-1, 1] },
          axis: { labelExpr: "replace(format(datum.value * 100, '+d'), '+0', '0')" },
        },
        x2: { field: "high" },
      },
    },
    {
      data: { values: [{ zero: 0 }] },
      mark: { type: "rule", color: cssColor("muted"), strokeDash: [4, 3] },
      encoding: { x: x("zero") },
    },
    {
      data,
      mark: {
        type: "point",
        filled: true,
        opacity: 1,
        size: 52,
        color: cssColor(color),
      },
      encoding: { y, x: x("value") },
    },
  ];
  return { title, height: Math.max(200, 70 + bars.length * 36), layers };
}
