import { Command } from "commander";
import { describe, expect, test } from "vitest";
import { parseGate } from "../../../src/cli/arguments/gate-syntax.js";
import { parseProbe } from "../../../src/cli/arguments/probe-syntax.js";
import {
  addSteerOption,
  type SteerOptions,
  steeringOf,
} from "../../../src/cli/arguments/steering.js";

describe("--gate", () => {
  test.each([
    [
      "refusal:4:above=0.5",
      { vectorId: "refusal", layer: 4, comparator: "COMPARATOR_ABOVE", threshold: 0.5 },
    ],
    [
      "a@sha256:0123456789ab:0:prompt-mean:cosine:below=-1e-2",
      {
        vectorId: "a@sha256:0123456789ab",
        layer: 0,
        scope: "SCOPE_PROMPT_MEAN",
        metric: "METRIC_COSINE",
        comparator: "COMPARATOR_BELOW",
        threshold: -0.01,
      },
    ],
    [
      "a:2:below=0:dot:prompt-last",
      {
        vectorId: "a",
        layer: 2,
        scope: "SCOPE_PROMPT_LAST_TOKEN",
        metric: "METRIC_DOT",
        comparator: "COMPARATOR_BELOW",
        threshold: 0,
      },
    ],
  ])("%s", (text, expected) => {
    expect(parseGate(text)).toEqual(expected);
  });

  test.each([
    ["", /begins with no vector id/],
    ["@v.json:4:above=0", /begins with no vector id/],
    ["a", /needs a layer after the vector, as in a:4:above=0/],
    ["a:", /needs a layer/],
    ["a:x:above=0", /"x" is not a whole number/],
    ["a:4", /needs a threshold/],
    ["a:4:cosine", /needs a threshold/],
    ["a:4:above=", /"" is not a number/],
    ["a:4:above=hot", /"hot" is not a number/],
    ["a:4:above=1:below=2", /two parts give a threshold/],
    ["a:4:above=1:dot:cosine", /two parts give a metric/],
    ["a:4:above=1:each-token:prompt-last", /two parts give a scope/],
    ["a:4:above=1:sometimes", /"sometimes" is neither above=X/],
    ["a:4:above=1:", /"" is neither/],
  ])("%s is refused", (text, message) => {
    expect(() => parseGate(text)).toThrow(message);
  });
});

describe("--probe", () => {
  test.each([
    ["defection", { probeId: "defection" }],
    ["defection:each-token", { probeId: "defection", read: "READ_EACH_TOKEN" }],
    [
      "d@sha256:0123456789ab:prompt-last",
      { probeId: "d@sha256:0123456789ab", read: "READ_PROMPT_LAST" },
    ],
    ["d:after=a:b", { probeId: "d", read: "READ_AFTER_TEXT", text: "a:b" }],
    ["d:after=\n", { probeId: "d", read: "READ_AFTER_TEXT", text: "\n" }],
  ])("%s", (text, expected) => {
    expect(parseProbe(text)).toEqual(expected);
  });

  test.each([
    ["", /begins with no probe id/],
    ["Big", /begins with no probe id/],
    ["d:", /"" is neither/],
    ["d:after=", /"after=" is neither/],
    ["d:never", /"never" is neither each-token, prompt-last nor after=TEXT/],
  ])("%s is refused", (text, message) => {
    expect(() => parseProbe(text)).toThrow(message);
  });
});

describe("--gate and --after-text", () => {
  function steerings(...args: string[]) {
    const command = addSteerOption(new Command())
      .exitOverride()
      .configureOutput({ writeErr() {} });
    command.parse(args, { from: "user" });
    return steeringOf(command.opts<SteerOptions>());
  }

  test("belong to the --steer before them", () => {
    expect(
      steerings(
        ...["-s", "a:2", "-s", "b:1:generated", "--after-text", "</s>", "--gate", "g:3:above=1"],
        ...["-s", "c", "--after-text", "x"],
      ),
    ).toEqual([
      { vectorId: "a", coefficient: 2 },
      {
        vectorId: "b",
        coefficient: 1,
        positions: { generated: {}, afterText: "</s>" },
        gate: { vectorId: "g", layer: 3, comparator: "COMPARATOR_ABOVE", threshold: 1 },
      },
      { vectorId: "c", positions: { all: {}, afterText: "x" } },
    ]);
  });

  test.each([
    [["--gate", "g:3:above=1"], /belongs behind the --steer/],
    [["--after-text", "x", "-s", "a"], /belongs behind the --steer/],
    [["-s", "a", "--after-text", ""], /the text is empty/],
    [["-s", "a", "--after-text", "x", "--after-text", "y"], /has an --after-text already/],
    [["-s", "a", "--gate", "g:3:above=1", "--gate", "g:3:above=1"], /has a gate already/],
  ])("%j is refused", (args, message) => {
    expect(() => steerings(...args)).toThrow(message);
  });
});
