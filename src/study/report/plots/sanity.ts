/** Whether the vectors do anything at all: on the base model. */
import type { CellFigures, Figures } from "../figures.js";
import { layersText, signedSize } from "../wording.js";
import { vectorColor } from "./colors.js";
import {
  axes,
  dots,
  type Layer,
  level,
  line,
  PERCENT_AXIS,
  type PointDatum,
  whiskers,
} from "./marks.js";
import type { Panel, Plot } from "./plot.js";

interface Curve {
  title: string;
  judge: "code" | "sentiment";
  cells: CellFigures[];
}

export function sanityPlot(figures: Figures): Plot | null {
  const curves = curvesOf(figures);
  if (curves.length === 0) return null;
  return {
    id: "sanity",
    title: "What the vectors do to the base model",
    caption:
      "A vector that means what its name says moves the base model too: its inverse should bring out insecure code, or darker words. " +
      "Code: shares with 95% Wilson intervals. Sentiment: mean score from −1 to 1 with 95% intervals.",
    alternative: curves.map(describe).join(" "),
    legend: curves.map(({ title }, index) => ({
      label: title,
      color: vectorColor(index),
      mark: "line",
    })),
    panels: curves.map(panelOf),
  };
}

function curvesOf(figures: Figures): Curve[] {
  const curves = new Map<string, Curve>();
  const unsteered = new Map(figures.cells.map((one) => [one.cell.id, one]));
  for (const one of figures.cells) {
    const { cell } = one;
    if (cell.purpose !== "sanity") continue;
    const title = `${cell.vector}, ${layersText(cell.layers)}, ${cell.promptSet}`;
    let curve = curves.get(title);
    if (!curve) {
      const rest = cell.pairedWith ? unsteered.get(cell.pairedWith) : undefined;
      curve = { title, judge: cell.judge, cells: rest ? [rest] : [] };
      curves.set(title, curve);
    }
    curve.cells.push(one);
  }
  for (const { cells } of curves.values()) {
    cells.sort((a, b) => a.cell.magnitude - b.cell.magnitude);
  }
  return [...curves.values()];
}

function panelOf(curve: Curve, index: number): Panel {
  const points = curve.cells.flatMap(pointOf);
  const color = vectorColor(index);
  const places = points.map(({ x }) => x);
  const low = Math.min(0, ...places);
  const high = Math.max(0, ...places);
  const margin = 0.04 * (high - low);
  const code = curve.judge === "code";
  const frame = axes(
    {
      title: "Signed size (× mean residual norm)",
      domain: [low - margin, high + margin],
    },
    code
      ? { title: "Insecure answers (%)", ...PERCENT_AXIS }
      : { title: "Mean sentiment score (−1 to 1)", domain: [-1, 1] },
  );
  const layers: Layer[] = [frame];
  if (!code) layers.push(level(0, "muted"));
  layers.push(line(points, color), whiskers(points, color), dots(points, color));
  return { title: curve.title, layers };
}

function pointOf({ cell, summary: { classes, sentiment } }: CellFigures): PointDatum[] {
  if (classes)
    return [{ x: cell.magnitude, y: classes.insecure.rate, ...classes.insecure.interval }];
  if (!sentiment) return [];
  return [{ x: cell.magnitude, y: sentiment.score.mean, ...sentiment.score.interval }];
}

function describe({ title, cells }: Curve): string {
  const points = cells.flatMap(pointOf);
  const first = points[0];
  const last = points.at(-1);
  if (!first || !last) return "";
  return `${title}: from ${first.y.toFixed(2)} at ${signedSize(first.x)} to ${last.y.toFixed(2)} at ${signedSize(last.x)}.`;
}
