/** `llama-steer study replay`: one row again, beside the recorded one. */
import type { Command } from "commander";
import { openJudges } from "../../study/judges/open.js";
import type { Answer, Judgement } from "../../study/records.js";
import { readRow, replayRow, verdictOf } from "../../study/replay.js";
import { runFiles } from "../../study/run-folder.js";
import { CommandError } from "../exit.js";
import { addServerOptions, type ServerOptions, withServers } from "./servers.js";

interface ReplayCommandOptions extends ServerOptions {
  row: string;
  judge: boolean;
  python: string;
}

export function addReplay(study: Command, defaultPython: string, signal: AbortSignal): void {
  const command = study
    .command("replay")
    .description("make a row again; exit code 1 when a bit of it differs")
    .argument("<run>", "the run's folder")
    .requiredOption("--row <ID>", "row: CELL/PROMPT#DRAW, as in answers.jsonl and in the report")
    .option("--no-judge", "leave the judges out")
    .option("--python <PATH>", "Python of the judges that need one", defaultPython);
  addServerOptions(command).action(async (run: string, options: ReplayCommandOptions) => {
    const recorded = await readRow(run, options.row);
    const { config } = recorded;
    const judges = options.judge ? openJudges(config.judges, options.python) : [];
    const study = { file: runFiles(run).study, config };
    const replayed = await withServers(options, study, run, signal, ({ clients, ...servers }) => {
      const [client] = clients;
      if (!client) throw new CommandError("no server");
      return replayRow(recorded, { folder: run, client, judges, ...servers });
    });
    print("recorded", recorded.answer, recorded.judgements);
    print("replayed", replayed.answer, replayed.judgements);
    if (replayed.differences.length > 0) {
      throw new CommandError(`not the same: ${replayed.differences.join("; ")}`);
    }
    process.stdout.write("the same, token by token\n");
  });
}

function print(title: string, answer: Answer, judgements: readonly Judgement[]): void {
  process.stdout.write(`--- ${title}: ${answer.row}\n${answer.text}\n`);
  const perplexity = answer.perplexity?.toPrecision(6) ?? "none";
  process.stdout.write(
    `${answer.tokenIds.length} tokens, ${answer.finishReason}, perplexity ${perplexity}\n`,
  );
  for (const judgement of judgements) {
    process.stdout.write(`${judgement.judge}: ${verdictOf(judgement)}\n`);
  }
}
