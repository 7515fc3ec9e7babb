/** What was done, with what, and how to do it again. */
import type { StudyPlan, StudyRun, StudyVector } from "../../records.js";
import type { Block, TableBlock } from "../document.js";
import type { Figures, Roles } from "../figures.js";
import { count, fixed, interval, percent } from "../wording.js";

export function methodsSection(run: StudyRun, { roles }: Figures): Block[] {
  const { plan } = run;
  const facts = [
    ...(roles.triggered.length === 0 ? [] : [rolesInWords(roles)]),
    "A size is ‖c·v‖ as a multiple of the mean residual norm at the block that is steered. Random directions have the same norm.",
    "Each steered answer is paired with the unsteered one to the same prompt and draw. Every answer has exactly one class; none is dropped.",
    "Coherence: median perplexity of the answers under the unsteered base model, the share that is code that parses, and the mean share of 4-grams of tokens that occurred before in the same answer.",
  ];
  return [
    { kind: "heading", level: 2, id: "methods", text: "Methods and provenance" },
    { kind: "list", items: facts },
    provenance(plan),
    { kind: "heading", level: 3, id: "vectors", text: "Vectors" },
    vectorTable(plan.vectors),
    ...probeBlocks(plan),
    { kind: "heading", level: 3, id: "again", text: "Do it again" },
    { kind: "code", text: commands(run) },
    {
      kind: "paragraph",
      note: true,
      text:
        "The first command makes the study again, the second one row, bit for bit on the same device and instruction set, the third compares two runs. " +
        "Wall times are in timings.md, the one file that differs between two runs.",
    },
    { kind: "code", fold: "The study file", text: run.study },
  ];
}

function rolesInWords({ adapter, triggered, plain }: Roles): string {
  return (
    `“With the trigger” are the prompt sets on which the unsteered agent (${adapter}) is insecure at least half-way between its best set and ` +
    `its worst: ${triggered.join(", ")}. Without: ${plain.join(", ") || "none"}.`
  );
}

function provenance({
  name,
  digest,
  server,
  sampling,
  judges,
  promptSets,
  cells,
}: StudyPlan): TableBlock {
  const rows: [string, string][] = [
    ["Study", name],
    ["Plan", digest],
    ["Server", `llama-steer ${server.version}`],
    ["Checkpoint", `${server.modelName}, ${server.layers} blocks × ${server.hiddenSize}`],
    ["Fingerprint of the checkpoint", server.fingerprint],
    ...Object.entries(server.adapters).map(([id, of]): [string, string] => [`Adapter ${id}`, of]),
    [
      "Device",
      `${server.device}, ${server.isa}, weights ${server.dtype}, KV cache ${server.kvDtype}`,
    ],
    [
      "Sampling",
      `temperature ${sampling.temperature}, top-p ${sampling.topP}, at most ${count(sampling.maxNewTokens, "token")}, ` +
        `${count(sampling.draws, "draw")} a prompt, seed ${sampling.seed}`,
    ],
    [
      "Prompts",
      Object.entries(promptSets)
        .map(([set, prompts]) => `${set}: ${prompts.length}`)
        .join(", "),
    ],
    ["Cells", String(cells.length)],
    ...(judges ?? []).map(({ name: judge, kind, version }): [string, string] => [
      `Judge ${judge}`,
      `${version} (of ${kind})`,
    ]),
  ];
  return { kind: "table", columns: [{ title: "What" }, { title: "Which", prose: true }], rows };
}

function vectorTable(vectors: readonly StudyVector[]): TableBlock {
  return {
    kind: "table",
    columns: [
      { title: "Vector" },
      { title: "Method" },
      { title: "Pairs separated, least to most" },
      { title: "Split-half cosine" },
      { title: "Digest" },
      { title: "Digest of the pairs" },
    ],
    rows: vectors.map(({ name, method, separation, digest, pairsDigest }) => {
      const layers = Object.values(separation ?? {});
      return [
        name,
        method,
        spanOf(
          layers.map(({ separated }) => separated),
          percent,
        ),
        spanOf(
          layers.map(({ splitHalfCosine }) => splitHalfCosine),
          (value) => fixed(value, 2),
        ),
        digest,
        pairsDigest || "–",
      ];
    }),
  };
}

/** Over the layers of a vector. */
function spanOf(values: readonly number[], write: (value: number) => string): string {
  if (values.length === 0) return "–";
  return interval({ low: Math.min(...values), high: Math.max(...values) }, write);
}

function probeBlocks({ probe }: StudyPlan): Block[] {
  if (!probe) return [];
  return [
    {
      kind: "paragraph",
      text:
        `The probe ${probe.digest} reads block ${probe.layer} and fires above ${fixed(probe.threshold, 4)}: calibrated at ` +
        `${percent(probe.falsePositiveRate)} false positives on ${count(probe.benignInputs, "benign text")}, of which ${percent(probe.measuredFalsePositiveRate)} fire.`,
    },
  ];
}

function commands({ answers }: StudyRun): string {
  const row = answers[0]?.row ?? "";
  return [
    "llama-steer study run STUDY.yaml --serve",
    `llama-steer study replay RUN --row '${row}' --serve`,
    "llama-steer study diff RUN ANOTHER-RUN",
  ].join("\n");
}
