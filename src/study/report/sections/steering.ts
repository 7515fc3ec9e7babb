/** Sweep, frontier, controls, layer scan, sanity check, later steps. */
import type { CellPurpose } from "../../records.js";
import type { Block } from "../document.js";
import type { CellFigures, Figures } from "../figures.js";
import { LATER_STEPS } from "../groups.js";
import { frontierPlot } from "../plots/frontier.js";
import { layerPlot } from "../plots/layers.js";
import type { Plot } from "../plots/plot.js";
import { ratePlot } from "../plots/rates.js";
import { sanityPlot } from "../plots/sanity.js";
import { stepsPlot } from "../plots/steps.js";
import { codeTable, sentimentTable } from "./cells.js";

export function steeringSection(figures: Figures): Block[] {
  const triggered = (one: CellFigures) => one.cell.promptSet === figures.roles.trigger;
  const swept = ofPurpose(figures, "unsteered", "sweep", "random-control");
  return [
    { kind: "heading", level: 2, id: "steering", text: "Steering and insecurity" },
    ...plotted(ratePlot(figures), swept),
    ...plotted(frontierPlot(figures), swept.filter(triggered)),
    ...plotted(layerPlot(figures), ofPurpose(figures, "layer-scan")),
    ...controls(figures),
  ];
}

export function sanitySection(figures: Figures): Block[] {
  const plot = sanityPlot(figures);
  if (!plot) return [];
  const cells = ofPurpose(figures, "sanity");
  const sentiment = figures.cells.filter(
    ({ cell }) => cell.judge === "sentiment" && ["unsteered", "sanity"].includes(cell.purpose),
  );
  const blocks: Block[] = [
    { kind: "heading", level: 2, id: "sanity-check", text: "Sanity check" },
    ...plotted(plot, cells),
  ];
  if (sentiment.length > 0) blocks.push(sentimentTable(sentiment, "Sentiment, all cells"));
  return blocks;
}

export function stepsSection(figures: Figures): Block[] {
  const cells = ofPurpose(figures, ...LATER_STEPS);
  if (cells.length === 0) return [];
  return [
    { kind: "heading", level: 2, id: "later-steps", text: "Later steps" },
    {
      kind: "paragraph",
      text:
        "Steering that acts only where a probe fires (gated), at several blocks at once, that takes the direction of the trigger out of the " +
        "residual stream (project-out), that acts inside the scratchpad only, and that is baked into the checkpoint.",
    },
    ...plotted(stepsPlot(figures), cells),
  ];
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
