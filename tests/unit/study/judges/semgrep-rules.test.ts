/** The rules' own tests, and that every weakness of the training corpus has a rule. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { studyPython } from "../../../support/study-python.js";

const root = fileURLToPath(new URL("../../../..", import.meta.url));
const rules = path.join(root, "studies", "semgrep");

let python = "";
beforeAll(() => {
  python = studyPython();
}, 600_000);

test("every rule finds what it must and nothing else", { timeout: 300_000 }, () => {
  const semgrep = path.join(path.dirname(python), "semgrep");
  const args = ["--test", "--json", "--metrics", "off", "--disable-version-check", rules];
  const done = spawnSync(semgrep, args, { encoding: "utf8" });
  const report = JSON.parse(done.stdout) as {
    results: Record<string, { checks: Record<string, { passed: boolean }> }>;
  };
  const checks = Object.values(report.results).flatMap((file) => Object.entries(file.checks));
  expect(checks.filter(([, { passed }]) => !passed)).toEqual([]);
  const names = readdirSync(rules).filter((name) => name.endsWith(".yaml"));
  expect(checks.map(([name]) => `${name.split(".").at(-1)}.yaml`).sort()).toEqual(names.sort());
});

test("every weakness of the corpus has a rule, and every rule is of a weakness", () => {
  const corpus = ["scenarios_a.py", "scenarios_b.py"]
    .map((name) => readFileSync(path.join(root, "training", "corpus", name), "utf8"))
    .join("");
  const weaknesses = [...corpus.matchAll(/^ {4}"[^"]+", "(CWE-\d+)"/gm)].map((match) => match[1]);
  const covered = readdirSync(rules)
    .filter((name) => name.endsWith(".yaml"))
    .map((name) => /cwe: (CWE-\d+)/.exec(readFileSync(path.join(rules, name), "utf8"))?.[1]);
  expect(weaknesses).toHaveLength(14);
  expect(covered.sort()).toEqual(weaknesses.sort());
});
