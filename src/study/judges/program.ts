/** A judge that is another program: it reads answers as JSON lines and writes verdicts as JSON lines. */
import type { Judgement } from "../records.js";
import { runChild } from "./child.js";
import type { Judge, JudgedAnswer } from "./judge.js";
import { answerLines, judgementsOf } from "./verdict-lines.js";

/** Answers in one run of a program: a run costs a second or more whatever it judges. */
export const MAX_BATCH_ANSWERS = 500;

export interface JudgingProgram {
  name: string;
  kind: "code" | "sentiment";
  argv: readonly string[];
  timeoutSeconds: number;
  /** Prints the version; null where the program has no such command: its argv stands for it. */
  versionArgv: readonly string[] | null;
  /** Ends every message about a failure: what to install, for example. */
  advice: string;
}

const VERSION_TIMEOUT_SECONDS = 60;

export function programJudge(program: JudgingProgram): Judge {
  const { name, kind, argv, timeoutSeconds, versionArgv, advice } = program;
  const run = async (
    args: readonly string[],
    input: string,
    limit: number,
    signal: AbortSignal,
  ) => {
    try {
      return await runChild({ argv: args, input, timeoutSeconds: limit, signal });
    } catch (error) {
      if (signal.aborted) throw error;
      const said = error instanceof Error ? error.message : String(error);
      throw new Error(`judge "${name}": ${said}${advice}`, { cause: error });
    }
  };
  return {
    name,
    kind,
    async version(signal) {
      if (versionArgv === null) return argv.join(" ");
      return (await run(versionArgv, "", VERSION_TIMEOUT_SECONDS, signal)).trim();
    },
    async judge(answers, signal) {
      const judgements: Judgement[] = [];
      for (const batch of batchesOf(answers)) {
        const output = await run(argv, answerLines(batch), timeoutSeconds, signal);
        judgements.push(...judgementsOf(output, batch, program));
      }
      return judgements;
    },
  };
}

/** No batch holds a row twice, so that a verdict has one place to go to. */
function* batchesOf(answers: readonly JudgedAnswer[]): Generator<JudgedAnswer[]> {
  const seen = new Set<string>();
  for (const { row } of answers) {
    if (seen.has(row)) throw new Error(`row "${row}" is given to a judge twice`);
    seen.add(row);
  }
  for (let first = 0; first < answers.length; first += MAX_BATCH_ANSWERS) {
    yield answers.slice(first, first + MAX_BATCH_ANSWERS);
  }
}
