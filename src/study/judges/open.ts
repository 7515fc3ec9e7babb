/** From the judges of a study file to judges. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { JudgeConfig } from "./config.js";
import type { Judge } from "./judge.js";
import { programJudge } from "./program.js";
import { openSentimentJudge } from "./sentiment.js";

const STUDIES = fileURLToPath(new URL("../../../studies", import.meta.url));
const JUDGE_ANSWERS = path.join(STUDIES, "judges", "judge_answers.py");
const REQUIREMENTS = path.join(STUDIES, "requirements.txt");

/**
 * `python`: the interpreter that has what studies/requirements.txt names; only Bandit and Semgrep need it.
 * Nothing is started here: what is missing shows in `version()` or `judge()`. Throws for two judges of one
 * name, and when the sentiment model cannot be read.
 */
export function openJudges(config: readonly JudgeConfig[], python: string): Judge[] {
  const names = config.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`two judges are named "${twice}"`);
  return config.map((judge) => openJudge(judge, python));
}

function openJudge(config: JudgeConfig, python: string): Judge {
  switch (config.type) {
    case "bandit":
      return pythonJudge(config, python, ["--skip", config.skip.join(",")]);
    case "semgrep":
      return pythonJudge(config, python, []);
    case "sentiment":
      return openSentimentJudge(config.name);
    case "command":
      return programJudge({
        ...config,
        timeoutSeconds: config.timeout_seconds,
        versionArgv: null,
        advice: "",
      });
  }
}

function pythonJudge(
  { name, type, timeout_seconds }: Extract<JudgeConfig, { type: "bandit" | "semgrep" }>,
  python: string,
  options: readonly string[],
): Judge {
  // -I: neither the working folder nor PYTHONPATH can put a module in the place of another.
  const argv = [python, "-I", JUDGE_ANSWERS, type];
  return programJudge({
    name,
    kind: "code",
    argv: [...argv, ...options],
    timeoutSeconds: timeout_seconds,
    versionArgv: [...argv, "--version"],
    advice: `\n${type} comes with: ${python} -m pip install -r ${REQUIREMENTS}`,
  });
}
