/** The defection probe beside random directions. */
import type { CurvePoint, DetectionFigures } from "../detection.js";
import type { Figures } from "../figures.js";
import { percent } from "../wording.js";
import { axes, band, dots, type Layer, line, PERCENT_AXIS, type PointDatum } from "./marks.js";
import type { Panel, Plot } from "./plot.js";

/** Share of false positives at which the second panel ends. */
const NEAR = 0.1;

export function rocPlot({ detection }: Figures): Plot | null {
  const [first] = detection;
  if (!first) return null;
  const directions = first.random?.directions ?? 0;
  return {
    id: "roc",
    title: "Does a linear probe see an insecure answer coming?",
    caption:
      "Read at the end of the prompt, before the first token. The band holds the middle 95% of random directions, each turned so that " +
      "it does its best. The dot is the calibrated threshold. The second panel is the first one near zero false alarms.",
    alternative: detection.map(describe).join(" "),
    legend: [
      { label: "probe", color: "first", mark: "line" },
      { label: `${directions} random directions`, color: "random", mark: "band" },
      { label: "chance", color: "muted", mark: "dashed" },
    ],
    panels: detection.flatMap((one) => [
      panelOf(one, `Block ${one.layer}, all thresholds`, 1),
      panelOf(one, `Block ${one.layer}, few false alarms`, NEAR),
    ]),
  };
}

function panelOf({ probe, random }: DetectionFigures, title: string, reach: number): Panel {
  const layers: Layer[] = [
    axes(
      { title: "False alarms (% of other prompts)", domain: [0, reach], format: ".0%" },
      { title: "Insecure answers foreseen (%)", ...PERCENT_AXIS },
    ),
  ];
  if (random) {
    const spans = random.band.map(({ falsePositives, ...span }) => ({
      x: falsePositives,
      ...span,
    }));
    layers.push(band(spans, "random"));
  }
  const chance = [0, reach].map((share) =>
    pointOf({ falsePositives: share, truePositives: share }),
  );
  layers.push(line(chance, "muted", true), line(probe.curve.map(pointOf), "first"));
  const { fired } = probe;
  if (fired && fired.secure.rate <= reach) {
    const threshold = { falsePositives: fired.secure.rate, truePositives: fired.insecure.rate };
    layers.push(dots([pointOf(threshold)], "first"));
  }
  return { title, layers };
}

function pointOf({ falsePositives, truePositives }: CurvePoint): PointDatum {
  return { x: falsePositives, y: truePositives, low: null, high: null };
}

function describe({ layer, probe, random }: DetectionFigures): string {
  const parts = [`Block ${layer}: area under the curve ${probe.auroc.toFixed(3)}`];
  if (random) parts.push(`the best random direction ${random.best.toFixed(3)}`);
  if (probe.fired) {
    parts.push(
      `the threshold foresees ${percent(probe.fired.insecure.rate)} with ${percent(probe.fired.secure.rate)} false alarms`,
    );
  }
  return `${parts.join("; ")}.`;
}
