/** The few marks that the plots of a report are made of. */
import type { LayerSpec } from "vega-lite/types_unstable/spec/index.js";
import { type Color, cssColor } from "./colors.js";

/** One layer of a panel. */
export type Layer = LayerSpec<string>["layer"][number];

export interface Axis {
  title: string;
  domain: [number, number];
  /** d3-format of the labels. */
  format?: string;
  values?: number[];
  log?: boolean;
}

/** A point with an interval; `low` and `high` are null where there is none. */
export interface PointDatum {
  x: number;
  y: number;
  low: number | null;
  high: number | null;
  label?: string;
}

const encode = (name: string) => ({ field: name, type: "quantitative" as const });

export function logAxis(title: string, domain: [number, number]): Axis {
  const values = decades(domain);
  return { title, domain, log: true, format: "~s", ...(values ? { values } : {}) };
}

/** Powers of ten, where there are enough of them; else whatever the axis chooses. */
function decades([low, high]: [number, number]): number[] | undefined {
  const first = Math.ceil(Math.log10(low));
  const count = Math.floor(Math.log10(high)) - first + 1;
  if (count < 3) return undefined;
  return Array.from({ length: count }, (_, index) => 10 ** (first + index));
}

/** Empty layer that fixes both axes, so that every other layer needs only its data. */
export function axes(x: Axis, y: Axis): Layer {
  const channel = (name: string, { title, domain, format, values, log }: Axis) => ({
    ...encode(name),
    title,
    scale: { domain, nice: false, ...(log ? { type: "log" as const } : { zero: false }) },
    axis: { ...(format ? { format } : {}), ...(values ? { values } : {}) },
  });
  return {
    data: { values: [{ x: x.domain[0], y: y.domain[0] }] },
    mark: { type: "point", opacity: 0 },
    encoding: { x: channel("x", x), y: channel("y", y) },
  };
}

export function line(data: readonly PointDatum[], color: Color, dashed = false): Layer {
  return {
    data: { values: [...data] },
    mark: {
      type: "line",
      color: cssColor(color),
      strokeWidth: 2,
      clip: true,
      ...(dashed ? { strokeDash: [4, 3] } : {}),
    },
    encoding: { x: encode("x"), y: encode("y"), order: { field: "index", type: "quantitative" } },
    transform: [{ window: [{ op: "row_number", as: "index" }] }],
  };
}

export type Shape = "circle" | "square" | "diamond" | "triangle-up";

export function dots(data: readonly PointDatum[], color: Color, shape: Shape = "circle"): Layer {
  return {
    data: { values: [...data] },
    mark: {
      type: "point",
      filled: true,
      size: 46,
      opacity: 1,
      shape,
      color: cssColor(color),
      stroke: cssColor("paper"),
      strokeWidth: 1,
    },
    encoding: { x: encode("x"), y: encode("y") },
  };
}

/** Vertical intervals. */
export function whiskers(data: readonly PointDatum[], color: Color): Layer {
  return {
    data: { values: data.filter(({ low }) => low !== null) },
    mark: { type: "rule", color: cssColor(color), strokeWidth: 1.5, opacity: 0.75 },
    encoding: { x: encode("x"), y: encode("low"), y2: { field: "high" } },
  };
}

export interface BandDatum {
  x: number;
  low: number;
  high: number;
}

export function band(data: readonly BandDatum[], color: Color): Layer {
  return {
    data: { values: [...data] },
    mark: { type: "area", color: cssColor(color), opacity: 0.22, clip: true },
    encoding: { x: encode("x"), y: encode("low"), y2: { field: "high" } },
  };
}

/** A line over the whole width, for what a panel is to be compared with. */
export function level(y: number, color: Color): Layer {
  return {
    data: { values: [{ y }] },
    mark: { type: "rule", color: cssColor(color), strokeWidth: 1.5, strokeDash: [4, 3] },
    encoding: { y: encode("y") },
  };
}

export function labels(data: readonly PointDatum[], color: Color): Layer {
  return {
    data: { values: data.filter(({ label }) => label !== undefined) },
    mark: { type: "text", align: "left", dx: 7, dy: -6, color: cssColor(color) },
    encoding: { x: encode("x"), y: encode("y"), text: { field: "label" } },
  };
}

export const PERCENT_AXIS = { domain: [0, 1] as [number, number], format: ".0%" };

export const SIZE_TITLE = "Size of the steering (× mean residual norm)";
