/** The probe beside random directions, ready to be drawn. */
import type { StudyRun } from "../records.js";
import { percentile } from "../statistics/bootstrap.js";
import { probeRoc } from "../statistics/probe-roc.js";
import type { Interval, Rate, RocCurve } from "../statistics/types.js";

export interface CurvePoint {
  falsePositives: number;
  truePositives: number;
}

export interface DetectionFigures {
  layer: number;
  judge: string;
  /** Prompts whose unsteered answer is insecure, and the others. */
  positives: number;
  negatives: number;
  probe: {
    auroc: number;
    interval: Interval | null;
    curve: CurvePoint[];
    /** Share of insecure and of secure answers on whose prompt the calibrated probe fires; null where it was not calibrated. */
    fired: { insecure: Rate; secure: Rate } | null;
  };
  /** Each turned so that it does its best; null when there are none. */
  random: {
    directions: number;
    /** The best area, and the middle 95% of them. */
    best: number;
    interval: Interval;
    /** Share of directions as far from chance as the probe. */
    shareAsFar: number;
    band: (Interval & { falsePositives: number })[];
  } | null;
}

/** Shares of false positives at which the band is drawn; closer together near zero. */
const GRID = [0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075].concat(
  Array.from({ length: 19 }, (_, step) => (step + 2) / 20),
);

export function detectionOf(run: StudyRun): DetectionFigures[] {
  const { judge, positives, negatives, curves, random } = probeRoc(run);
  return curves
    .filter(({ direction }) => direction === "probe")
    .map(({ layer, auroc, interval, fired, points }) => {
      const others = curves.filter((one) => one.layer === layer && one.direction !== "probe");
      const shareAsFar = random.find((one) => one.layer === layer)?.shareAsFar ?? 0;
      const curve = points.map(curvePoint);
      return {
        ...{ layer, judge, positives, negatives },
        probe: { auroc, interval, curve, fired },
        random: others.length > 0 ? randomOf(others, shareAsFar) : null,
      };
    });
}

const curvePoint = (point: RocCurve["points"][number]): CurvePoint => ({
  falsePositives: point.falsePositiveRate,
  truePositives: point.truePositiveRate,
});

function randomOf(curves: readonly RocCurve[], shareAsFar: number): DetectionFigures["random"] {
  const areas = curves.map(({ auroc }) => Math.max(auroc, 1 - auroc)).sort((a, b) => a - b);
  const turned = curves.map(turnedUp);
  const middle = (values: number[]): Interval => {
    values.sort((a, b) => a - b);
    return { low: percentile(values, 0.025), high: percentile(values, 0.975) };
  };
  return {
    directions: curves.length,
    best: areas.at(-1) ?? 0.5,
    interval: middle(areas),
    shareAsFar,
    band: GRID.map((falsePositives) => ({
      falsePositives,
      ...middle(turned.map((points) => heightAt(points, falsePositives))),
    })),
  };
}

/** The curve of the direction, or of its negative: whichever has the larger area. */
function turnedUp({ auroc, points }: RocCurve): CurvePoint[] {
  const curve = points.map(curvePoint);
  if (auroc >= 0.5) return curve;
  return curve
    .map(({ falsePositives, truePositives }) => ({
      falsePositives: 1 - falsePositives,
      truePositives: 1 - truePositives,
    }))
    .reverse();
}

/** The highest point of the curve at this share, on the straight line between its neighbours. */
function heightAt(curve: readonly CurvePoint[], falsePositives: number): number {
  const after = curve.findIndex((point) => point.falsePositives > falsePositives);
  const right = curve[after];
  const left = curve[after === -1 ? curve.length - 1 : after - 1];
  if (!left) return 0;
  if (!right) return left.truePositives;
  const share =
    (falsePositives - left.falsePositives) / (right.falsePositives - left.falsePositives);
  return left.truePositives + share * (right.truePositives - left.truePositives);
}
