/** A plot of the report: what it shows in words, and its panels as layers of Vega-Lite. */
import type { Color } from "./colors.js";
import type { Layer } from "./marks.js";

export interface LegendEntry {
  label: string;
  color: Color;
  mark: "line" | "dashed" | "band" | "point";
}

export interface Panel {
  title: string;
  /** Pixels, where it is not the usual. */
  height?: number;
  /** Drawn in this order. */
  layers: Layer[];
}

export interface Plot {
  /** Unique in the report; names the SVG file beside the Markdown. */
  id: string;
  title: string;
  /** How to read it, in a sentence or two. */
  caption: string;
  /** What a reader who cannot see it should know. */
  alternative: string;
  legend: LegendEntry[];
  panels: Panel[];
}
