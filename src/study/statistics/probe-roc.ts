/** The detection side: can a direction tell, before an answer, that it will be insecure? */
import type { ProbeReading, StudyRun } from "../records.js";
import { bootstrap } from "./bootstrap.js";
import { rateOf } from "./intervals.js";
import { auroc, aurocOfSorted, rocPoints, type Scored } from "./roc.js";
import { groupBy, indexRun } from "./run-index.js";
import type { Interval, ProbeRoc, RandomDirections, RocCurve } from "./types.js";

const PROBE = "probe";

interface Labelled extends Scored {
  task: string;
  reading: ProbeReading;
}

/**
 * A prompt is positive when an unsteered answer to it, under an adapter where there is one, is insecure to
 * the first judge of code. Readings of prompts that have no such answer are left out. No curves where all
 * prompts are of one kind.
 */
export function probeRoc(run: StudyRun): ProbeRoc {
  const labels = labelPrompts(run);
  const readings = run.probe.flatMap((reading): Labelled[] => {
    const label = labels.prompts.get(keyOf(reading));
    return label === undefined ? [] : [{ ...label, score: reading.score, reading }];
  });
  const groups = groupBy(readings, ({ reading }) => `${reading.layer}/${reading.direction}`);
  const curves = [...groups.values()].flatMap(curveOf).sort(probeFirst);
  const one = [...groups.values()][0] ?? [];
  const positives = one.filter(({ positive }) => positive).length;
  const layers = [...new Set(curves.map(({ layer }) => layer))].sort((a, b) => a - b);
  return {
    judge: readings.length === 0 ? "" : labels.judge,
    positives,
    negatives: one.length - positives,
    curves,
    random: layers.map((layer) => randomOf(layer, curves)),
  };
}

const keyOf = ({ promptSet, prompt }: { promptSet: string; prompt: string }) =>
  JSON.stringify([promptSet, prompt]);

interface Labels {
  judge: string;
  prompts: Map<string, { task: string; positive: boolean }>;
}

function labelPrompts(run: StudyRun): Labels {
  const index = indexRun(run);
  const unsteered = run.plan.cells.filter(
    ({ purpose, judge }) => purpose === "unsteered" && judge === "code",
  );
  const hasAdapter = unsteered.some(({ adapter }) => adapter !== "");
  const cells = unsteered.filter(({ adapter }) => !hasAdapter || adapter !== "");
  const judge = index.judges.find((name) =>
    cells.some(({ id }) => index.rows(id, name).some(({ judgement }) => judgement.class !== null)),
  );
  const prompts: Labels["prompts"] = new Map();
  for (const { id, promptSet } of cells) {
    for (const { prompt, judgement } of index.rows(id, judge ?? "")) {
      const key = keyOf({ promptSet, prompt: prompt.id });
      const positive = judgement.class === "insecure" || prompts.get(key)?.positive === true;
      prompts.set(key, { task: prompt.task, positive });
    }
  }
  return { judge: judge ?? "", prompts };
}

function curveOf(readings: readonly Labelled[]): RocCurve[] {
  const first = readings[0]?.reading;
  const positives = readings.filter(({ positive }) => positive);
  const negatives = readings.filter(({ positive }) => !positive);
  if (first === undefined || positives.length === 0 || negatives.length === 0) return [];
  const isCalibrated = readings.every(({ reading }) => reading.fired !== null);
  const fired = (of: readonly Labelled[]) =>
    rateOf(of.filter(({ reading }) => reading.fired === true).length, of.length);
  return [
    {
      direction: first.direction,
      layer: first.layer,
      points: rocPoints(readings),
      auroc: auroc(readings, () => 1),
      interval: first.direction === PROBE ? aurocInterval(readings) : null,
      fired: isCalibrated ? { insecure: fired(positives), secure: fired(negatives) } : null,
    },
  ];
}

/** Draws tasks; a resample without positives or without negatives has no AUROC and is left out. */
export function aurocInterval(
  scored: readonly (Scored & { task: string })[],
  options = {},
): Interval {
  const tasks = [...new Set(scored.map(({ task }) => task))];
  const numbers = new Map(tasks.map((task, number) => [task, number]));
  const taskOf = scored.map(({ task }) => numbers.get(task) ?? 0);
  const rising = scored.map((_, place) => place);
  rising.sort((a, b) => (scored[a]?.score ?? 0) - (scored[b]?.score ?? 0));
  return bootstrap(
    tasks.length,
    (counts) => aurocOfSorted(scored, rising, (place) => counts[taskOf[place] ?? 0] ?? 0),
    options,
  );
}

function probeFirst(a: RocCurve, b: RocCurve): number {
  const rank = ({ direction }: RocCurve) => (direction === PROBE ? 0 : 1);
  return (
    rank(a) - rank(b) ||
    a.layer - b.layer ||
    a.direction.localeCompare(b.direction, "en", { numeric: true })
  );
}

function randomOf(layer: number, curves: readonly RocCurve[]): RandomDirections {
  const here = curves.filter((curve) => curve.layer === layer);
  const probe = here.find(({ direction }) => direction === PROBE);
  const aurocs = here.filter(({ direction }) => direction !== PROBE).map((curve) => curve.auroc);
  const distance = (value: number) => Math.abs(value - 0.5);
  const asFar = aurocs.filter((value) => distance(value) >= distance(probe?.auroc ?? 0.5)).length;
  const none = aurocs.length === 0;
  return {
    layer,
    aurocs: aurocs.sort((a, b) => a - b),
    farthest: none ? null : Math.max(...aurocs.map(distance)),
    shareAsFar: none || probe === undefined ? null : asFar / aurocs.length,
  };
}
