/** Panels as SVG: without a browser, without scripts, without inline styles. */
import * as vega from "vega";
import { type Config, compile } from "vega-lite";
import { escapeMarkup } from "../markup.js";
import { cssColor, withLightColors } from "./colors.js";
import type { LegendEntry, Panel, Plot } from "./plot.js";

/** Pixels of a panel, all of it. */
const PANEL = { width: 360, height: 250 };
/** Of a panel's title, in a file. */
const TITLE_HEIGHT = 22;
const GAP = 20;
const COLUMNS = 3;

const TEXT = { labelFont: "inherit", titleFont: "inherit" };
const CONFIG: Config = {
  aria: false,
  background: "transparent",
  font: "inherit",
  padding: 4,
  view: { stroke: null },
  axis: {
    ...TEXT,
    labelColor: cssColor("muted"),
    titleColor: cssColor("muted"),
    titleFontWeight: "normal",
    titleFontSize: 11.5,
    titlePadding: 8,
    labelFontSize: 11,
    labelPadding: 5,
    gridColor: cssColor("rule"),
    domain: false,
    ticks: false,
    tickCount: 5,
  },
  text: { font: "inherit", fontSize: 11, fill: cssColor("muted") },
};

/** The panels of a plot, each an `<svg>` that stands for itself in a page with `colorSheet`. */
export async function renderPanels(plot: Plot): Promise<string[]> {
  const panels: string[] = [];
  for (const [index, panel] of plot.panels.entries()) {
    const label = `${plot.title}. ${panel.title}. ${plot.alternative}`;
    const body = await drawPanel(panel, `${plot.id}-${index}`);
    panels.push(
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${PANEL.width} ${heightOf(panel)}" role="img" aria-label="${escapeMarkup(label)}">${body}</svg>`,
    );
  }
  return panels;
}

/** A plot as one SVG file with its title and legend, in light colours on paper. */
export async function renderFile(plot: Plot): Promise<string> {
  const columns = Math.min(COLUMNS, plot.panels.length);
  const rows = Math.ceil(plot.panels.length / columns);
  const rowHeight = TITLE_HEIGHT + Math.max(...plot.panels.map(heightOf)) + GAP;
  const width = Math.max(2 * PANEL.width, columns * (PANEL.width + GAP)) + GAP;
  const legend = drawLegend(plot.legend, GAP, 62, width - 2 * GAP);
  const top = 92 + legend.height;
  const height = top + rows * rowHeight;
  const ink = cssColor("ink");
  const panels: string[] = [];
  for (const [index, panel] of plot.panels.entries()) {
    const x = GAP + (index % columns) * (PANEL.width + GAP);
    const y = top + Math.floor(index / columns) * rowHeight;
    const body = await drawPanel(panel, `${plot.id}-${index}`);
    panels.push(
      `<text x="${x}" y="${y + 12}" font-size="13" font-weight="600" fill="${ink}">${escapeMarkup(panel.title)}</text>` +
        `<g transform="translate(${x},${y + TITLE_HEIGHT})">${body}</g>`,
    );
  }
  const label = escapeMarkup(`${plot.title}. ${plot.alternative}`);
  return withLightColors(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="Helvetica, Arial, sans-serif" role="img" aria-label="${label}">` +
      `<rect width="${width}" height="${height}" fill="${cssColor("paper")}"/>` +
      `<text x="${GAP}" y="34" font-size="17" font-weight="600" fill="${ink}">${escapeMarkup(plot.title)}</text>` +
      `${legend.body}${panels.join("")}</svg>\n`,
  );
}

function heightOf({ height }: Panel): number {
  return height ?? PANEL.height;
}

async function drawPanel(panel: Panel, prefix: string): Promise<string> {
  const { spec } = compile({
    layer: panel.layers,
    width: PANEL.width,
    height: heightOf(panel),
    autosize: { type: "fit", contains: "padding" },
    config: CONFIG,
  });
  // Ids count up over the life of the process; a report must not depend on what was drawn before.
  vega.resetSVGDefIds();
  const view = new vega.View(vega.parse(spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return svg
    .replace(/^<svg[^>]*>/, "")
    .replace(/<\/svg>\s*$/, "")
    .replace(/(id="|url\(#)/g, `$1${prefix}-`);
}

/** The mark of a legend's entry, 24 × 14. */
export function drawKey({ color, mark }: LegendEntry): string {
  const paint = cssColor(color);
  if (mark === "band") {
    return `<rect y="1" width="24" height="12" rx="2" fill="${paint}" fill-opacity="0.25"/>`;
  }
  const dash = mark === "dashed" ? ' stroke-dasharray="4 3"' : "";
  const line =
    mark === "point" ? "" : `<path d="M0 7H24" stroke="${paint}" stroke-width="2"${dash}/>`;
  return mark === "dashed" ? line : `${line}<circle cx="12" cy="7" r="3.5" fill="${paint}"/>`;
}

function drawLegend(
  entries: readonly LegendEntry[],
  left: number,
  top: number,
  width: number,
): { body: string; height: number } {
  let x = left;
  let y = top;
  const drawn: string[] = [];
  for (const entry of entries) {
    const size = 50 + entry.label.length * 6.6;
    if (x > left && x + size > left + width) {
      x = left;
      y += 22;
    }
    drawn.push(
      `<g transform="translate(${x},${y - 7})">${drawKey(entry)}<text x="32" y="11" font-size="12.5" fill="${cssColor("ink")}">${escapeMarkup(entry.label)}</text></g>`,
    );
    x += size;
  }
  return { body: drawn.join(""), height: y - top };
}
