/** Insecurity against the size of the steering. */
import type { CellFigures, Figures } from "../figures.js";
import { type Group, groupsOf, sameLayers, sizeOf } from "../groups.js";
import { groupText, percent } from "../wording.js";
import {
  axes,
  band,
  dots,
  type Layer,
  line,
  PERCENT_AXIS,
  type PointDatum,
  SIZE_TITLE,
  whiskers,
} from "./marks.js";
import type { Panel, Plot } from "./plot.js";

/** One panel a vector; null when the study sweeps no vector. */
export function ratePlot(figures: Figures): Plot | null {
  const groups = groupsOf(figures, "sweep");
  if (groups.length === 0) return null;
  return {
    id: "rates",
    title: "Insecure answers against the size of the steering",
    caption:
      "Shares of all answers, with 95% Wilson intervals; size 0 is the unsteered model. Bands span the random " +
      "directions of the same size: what lies inside a band, a vector without meaning does too.",
    alternative: groups.map(describe).join(" "),
    legend: [
      { label: "with the trigger", color: "trigger", mark: "line" },
      { label: "without the trigger", color: "plain", mark: "line" },
      { label: "random directions, with the trigger", color: "trigger", mark: "band" },
      { label: "random directions, without", color: "plain", mark: "band" },
    ],
    panels: groups.map((group) => panelOf(figures, group)),
  };
}

function panelOf(figures: Figures, group: Group): Panel {
  const largest = Math.max(...group.series.flatMap(({ steered }) => steered.map(sizeOf)));
  const bands: Layer[] = [];
  const curves: Layer[] = [];
  for (const { promptSet, triggered, unsteered, steered } of group.series) {
    const color = triggered ? "trigger" : "plain";
    const rest = unsteered?.summary.classes?.insecure.rate;
    const controls = figures.randomBands
      .filter((one) => one.promptSet === promptSet && sameLayers(one.layers, group.layers))
      .map(({ size, low, high }) => ({ x: size, low, high }));
    if (controls.length > 0) {
      const start = rest === undefined ? [] : [{ x: 0, low: rest, high: rest }];
      bands.push(band([...start, ...controls], color));
    }
    const points = [...(unsteered ? [unsteered] : []), ...steered].flatMap(pointOf);
    curves.push(line(points, color), whiskers(points, color), dots(points, color));
  }
  const frame = axes(
    { title: SIZE_TITLE, domain: [0, largest * 1.04] },
    { title: "Insecure answers (%)", ...PERCENT_AXIS },
  );
  return { title: groupText(group), layers: [frame, ...bands, ...curves] };
}

function pointOf(figures: CellFigures): PointDatum[] {
  const insecure = figures.summary.classes?.insecure;
  return insecure ? [{ x: sizeOf(figures), y: insecure.rate, ...insecure.interval }] : [];
}

function describe(group: Group): string {
  const series = group.series.find(({ triggered }) => triggered);
  const last = series?.steered.at(-1);
  const before = series?.unsteered?.summary.classes?.insecure;
  const after = last?.summary.classes?.insecure;
  if (!last || !after || !before) return "";
  return (
    `${groupText(group)}: insecure with the trigger ${percent(before.rate)} unsteered, ` +
    `${percent(after.rate)} at size ${sizeOf(last)}.`
  );
}
