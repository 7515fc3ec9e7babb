/** Where in the model steering works: the layer scan. */
import type { Figures } from "../figures.js";
import { groupsOf } from "../groups.js";
import { percent, signText } from "../wording.js";
import { axes, dots, type Layer, level, line, PERCENT_AXIS, whiskers } from "./marks.js";
import type { Panel, Plot } from "./plot.js";

interface Scan {
  title: string;
  /** By prompt set. */
  curves: { promptSet: string; triggered: boolean; rest: number | null; points: ScanPoint[] }[];
}

interface ScanPoint {
  x: number;
  y: number;
  low: number;
  high: number;
}

export function layerPlot(figures: Figures): Plot | null {
  const scans = scansOf(figures);
  if (scans.length === 0) return null;
  return {
    id: "layers",
    title: "Insecure answers against the block that is steered",
    caption:
      "One block at a time, the same size at each (a multiple of that block's own mean residual norm), with 95% Wilson intervals. " +
      "Dashed: the unsteered model.",
    alternative: scans.map(describe).join(" "),
    legend: [
      { label: "with the trigger", color: "trigger", mark: "line" },
      { label: "without the trigger", color: "plain", mark: "line" },
      { label: "unsteered, with the trigger", color: "trigger", mark: "dashed" },
    ],
    panels: scans.map(panelOf),
  };
}

function scansOf(figures: Figures): Scan[] {
  const scans = new Map<string, Scan>();
  for (const { vector, sign, layers, series } of groupsOf(figures, "layer-scan")) {
    for (const { promptSet, triggered, unsteered, steered } of series) {
      for (const { cell, summary } of steered) {
        const insecure = summary.classes?.insecure;
        const title = `${vector}, ${signText({ sign })}, size ${Math.abs(cell.magnitude)}`;
        const scan = scans.get(title) ?? { title, curves: [] };
        scans.set(title, scan);
        let curve = scan.curves.find((one) => one.promptSet === promptSet);
        if (!curve) {
          const rest = unsteered?.summary.classes?.insecure.rate ?? null;
          curve = { promptSet, triggered, rest, points: [] };
          scan.curves.push(curve);
        }
        const [layer] = layers;
        if (insecure && layer !== undefined) {
          curve.points.push({ x: layer, y: insecure.rate, ...insecure.interval });
        }
      }
    }
  }
  for (const { curves } of scans.values()) {
    for (const { points } of curves) points.sort((a, b) => a.x - b.x);
  }
  return [...scans.values()];
}

function panelOf({ title, curves }: Scan): Panel {
  const blocks = [...new Set(curves.flatMap(({ points }) => points.map(({ x }) => x)))];
  const first = Math.min(...blocks);
  const last = Math.max(...blocks);
  const frame = axes(
    {
      title: "Block (from 0)",
      domain: [first - 0.4, last + 0.4],
      values: blocks.length > 12 ? blocks.filter((_, index) => index % 3 === 0) : blocks,
      format: "d",
    },
    { title: "Insecure answers (%)", ...PERCENT_AXIS },
  );
  const layers: Layer[] = [frame];
  for (const { triggered, rest, points } of curves) {
    const color = triggered ? "trigger" : "plain";
    if (triggered && rest !== null) layers.push(level(rest, color));
    layers.push(line(points, color), whiskers(points, color), dots(points, color));
  }
  return { title, layers };
}

function describe({ title, curves }: Scan): string {
  const curve = curves.find(({ triggered }) => triggered);
  const lowest = curve?.points.toSorted((a, b) => a.y - b.y)[0];
  if (!lowest) return "";
  return `${title}: with the trigger the lowest insecure share is ${percent(lowest.y)}, at block ${lowest.x}.`;
}
