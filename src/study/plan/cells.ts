/** The cells of a study, from its file alone: a plan needs no server. */
import type { StepTarget, StudyConfig } from "../file/schema.js";
import type { CellPurpose, StudyCell } from "../records.js";

/** In the order in which they are run; unsteered cells first. The same file gives the same cells. */
export function cellsOf(config: StudyConfig): StudyCell[] {
  const steered = [...steeredCells(config)];
  const unsteered = new Map<string, StudyCell>();
  for (const { pairedWith, adapter, promptSet, judge } of steered) {
    if (pairedWith === null || unsteered.has(pairedWith)) continue;
    unsteered.set(pairedWith, {
      id: pairedWith,
      purpose: "unsteered",
      adapter,
      promptSet,
      judge,
      vector: null,
      operation: null,
      layers: [],
      magnitude: 0,
      pairedWith: null,
    });
  }
  return [...unsteered.values(), ...steered];
}

function* steeredCells(config: StudyConfig): Generator<StudyCell> {
  const { steps, model } = config;
  const helping = (vector: string) => config.vectors[vector]?.toward ?? 1;
  const each = { config, adapter: model.adapter, sign: helping, together: false };
  for (const sanity of steps.sanity) {
    const sign = (vector: string) => -helping(vector);
    yield* added("sanity", sanity, { ...each, adapter: "", sign });
  }
  if (steps.sweep) yield* added("sweep", steps.sweep, each);
  if (steps.sweep && steps.random_controls) {
    const { count, prompts = steps.sweep.prompts } = steps.random_controls;
    const vectors = Array.from({ length: count }, (_, index) => randomName(index + 1));
    const target = { ...steps.sweep, vectors, prompts };
    yield* added("random-control", target, { ...each, sign: () => 1 });
  }
  if (steps.layer_control) yield* added("layer-control", steps.layer_control, each);
  if (steps.layer_scan) {
    const { magnitude, ...scan } = steps.layer_scan;
    yield* added("layer-scan", { ...scan, magnitudes: [magnitude] }, each);
  }
  if (steps.several_layers) {
    yield* added("several-layers", steps.several_layers, { ...each, together: true });
  }
  if (steps.project_out) yield* projectedOut(config, steps.project_out);
  if (steps.scratchpad_only) yield* added("scratchpad-only", steps.scratchpad_only, each);
  if (steps.gated) yield* added("gated", steps.gated, each);
  if (steps.baked) yield* added("baked", steps.baked, each);
}

export const randomName = (number: number) => `random-${number}`;

interface Added {
  config: StudyConfig;
  adapter: string;
  sign: (vector: string) => number;
  /** All layers in one cell; else a cell for each layer. */
  together: boolean;
}

/** ADD: vectors × layers × magnitudes × prompt sets. */
function* added(
  purpose: CellPurpose,
  target: StepTarget,
  { config, adapter, sign, together }: Added,
): Generator<StudyCell> {
  const layers = layersOf(config, target.layers);
  const groups = together ? [layers] : layers.map((layer) => [layer]);
  for (const vector of target.vectors) {
    for (const group of groups) {
      for (const size of target.magnitudes) {
        const magnitude = sign(vector) * size;
        for (const promptSet of target.prompts) {
          const parts = [purpose, vector, formatGroup(group), formatMagnitude(magnitude)];
          yield {
            id: [...parts, promptSet].join("/"),
            ...{ purpose, adapter, promptSet, judge: judgeOf(config, promptSet) },
            ...{ vector, operation: "ADD", layers: group, magnitude },
            pairedWith: unsteeredId(adapter, promptSet),
          };
        }
      }
    }
  }
}

function* projectedOut(
  config: StudyConfig,
  target: NonNullable<StudyConfig["steps"]["project_out"]>,
): Generator<StudyCell> {
  const { adapter } = config.model;
  const layers = layersOf(config, target.layers);
  for (const vector of target.vectors) {
    for (const promptSet of target.prompts) {
      yield {
        id: ["project-out", vector, formatGroup(layers), promptSet].join("/"),
        ...{ purpose: "project-out", adapter, promptSet, judge: judgeOf(config, promptSet) },
        ...{ vector, operation: "PROJECT_OUT", layers, magnitude: 1 },
        pairedWith: unsteeredId(adapter, promptSet),
      };
    }
  }
}

export function layersOf(config: StudyConfig, layers: "all" | readonly number[]): number[] {
  if (layers === "all") return Array.from({ length: config.model.layers }, (_, layer) => layer);
  return [...new Set(layers)].sort((a, b) => a - b);
}

const judgeOf = (config: StudyConfig, set: string) => config.prompts[set]?.judge ?? "code";

const unsteeredId = (adapter: string, promptSet: string) =>
  `unsteered/${adapter === "" ? "base" : adapter}/${promptSet}`;

/** [3, 4, 5] as "L3-5", [1, 4] as "L1+4". */
function formatGroup(layers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last && layer === last[1] + 1) last[1] = layer;
    else runs.push([layer, layer]);
  }
  return `L${runs.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join("+")}`;
}

/** 0.5 as "+0.50"; more digits where two would not tell it. */
function formatMagnitude(magnitude: number): string {
  const size = Math.abs(magnitude);
  const short = size.toFixed(2);
  return `${magnitude < 0 ? "-" : "+"}${Number(short) === size ? short : size}`;
}
