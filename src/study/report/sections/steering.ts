/** Sweep, frontier, controls, layer scan, sanity check, later steps. */
import type { CellPurpose } from "../../records.js";
import { bestOfEach, candidatesOf, restOf } from "../answer.js";
import type { Block, TableBlock } from "../document.js";
import type { CellFigures, Figures } from "../figures.js";
import { LATER_STEPS } from "../groups.js";
import { frontierPlot } from "../plots/frontier.js";
import { layerPlot } from "../plots/layers.js";
import type { Plot } from "../plots/plot.js";
import { ratePlot } from "../plots/rates.js";
import { sanityPlot } from "../plots/sanity.js";
import { stepsPlot } from "../plots/steps.js";
import { groupText } from "../wording.js";
import { codeTable, rateText, sentimentTable } from "./cells.js";

export function steeringSection(figures: Figures): Block[] {
  const triggered = (one: CellFigures) => figures.roles.triggered.includes(one.cell.promptSet);
  const swept = ofPurpose(figures, "unsteered", "sweep", "random-control");
  return headed("steering", "Steering and insecurity", [
    ...plotted(ratePlot(figures), swept),
    ...byKind(figures),
    ...plotted(frontierPlot(figures), swept.filter(triggered)),
    ...plotted(layerPlot(figures), ofPurpose(figures, "layer-scan")),
    ...controls(figures),
  ]);
}

/** Insecure answers with the trigger, by what the prompts ask for. */
function byKind(figures: Figures): Block[] {
  const rest = restOf(figures);
  const kinds = Object.keys(rest?.summary.insecureByKind ?? {});
  if (!rest || kinds.length === 0) return [];
  const best = bestOfEach(candidatesOf(figures));
  const columns = [
    { title: "Kind of prompt" },
    { title: "unsteered", number: true },
    ...best.map((one) => ({ title: `${groupText(one.group)}, size ${one.size}`, number: true })),
  ];
  const cells = [rest, ...best.map(({ triggered }) => triggered)];
  const rows = kinds.map((kind) => [
    kind,
    ...cells.map(({ summary }) => rateText(summary.insecureByKind[kind])),
  ]);
  const fold =
    "By kind of prompt: insecure answers with the trigger, at the best size of each vector";
  return [{ kind: "table", columns, rows, fold }];
}

export function sanitySection(figures: Figures): Block[] {
  const plot = sanityPlot(figures);
  if (!plot) return [];
  const cells = ofPurpose(figures, "sanity");
  const sentiment = figures.cells.filter(
    ({ cell }) => cell.judge === "sentiment" && ["unsteered", "sanity"].includes(cell.purpose),
  );
  const tables: TableBlock[] = [];
  if (cells.length > 0) tables.push(codeTable(cells, "The numbers, code"));
  if (sentiment.length > 0) tables.push(sentimentTable(sentiment, "The numbers, sentiment"));
  const [table, ...others] = tables;
  return table
    ? headed("sanity-check", "Sanity check", [{ kind: "plot", plot, table }, ...others])
    : [];
}

export function stepsSection(figures: Figures): Block[] {
  const cells = ofPurpose(figures, ...LATER_STEPS);
  if (cells.length === 0) return [];
  return headed("later-steps", "Later steps", [
    {
      kind: "paragraph",
      text:
        "Steering that acts only where a probe fires (gated), at several blocks at once, that takes the direction of the trigger out of the " +
        "residual stream (project-out), that acts inside the scratchpad only, and that is baked into the checkpoint.",
    },
    ...plotted(stepsPlot(figures), cells),
  ]);
}

/** Nothing under a heading of its own is nothing. */
function headed(id: string, text: string, blocks: Block[]): Block[] {
  return blocks.length === 0 ? [] : [{ kind: "heading", level: 2, id, text }, ...blocks];
}

function controls(figures: Figures): Block[] {
  const cells = ofPurpose(figures, "layer-control");
  if (cells.length === 0) return [];
  return [
    {
      kind: "heading",
      level: 3,
      id: "layer-control",
      text: "Control: the same vector at another block",
    },
    codeTable(cells),
  ];
}

function ofPurpose({ cells }: Figures, ...purposes: CellPurpose[]): CellFigures[] {
  return cells.filter(({ cell }) => cell.judge === "code" && purposes.includes(cell.purpose));
}

function plotted(plot: Plot | null, cells: readonly CellFigures[]): Block[] {
  return plot ? [{ kind: "plot", plot, table: codeTable(cells, "The numbers") }] : [];
}
