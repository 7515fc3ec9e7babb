/** `llama-steer study`: experiments from a file, kept row by row, that anyone can run again. */
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { Command } from "commander";
import { type LoadedStudy, loadStudy } from "../study/file/load.js";
import { parseStudy } from "../study/file/parse.js";
import { openJudges } from "../study/judges/open.js";
import { compareRuns } from "../study/report/diff.js";
import { writeReport } from "../study/report/write.js";
import { lockFolder } from "../study/run/lock.js";
import { type RunResult, runStudy } from "../study/run/run.js";
import { readRun, runFiles } from "../study/run-folder.js";
import { readSoFar } from "../study/so-far.js";
import { integer, number } from "./arguments/options.js";
import { dryRun } from "./study/dry-run.js";
import { StudyProgress } from "./study/progress.js";
import { addReplay } from "./study/replay.js";
import { addServerOptions, type ServerOptions, withServers } from "./study/servers.js";

export interface RunCommandOptions extends ServerOptions {
  out?: string;
  dryRun?: boolean;
  tokensPerSecond?: number;
  inFlight?: number;
  python: string;
}

export const DEFAULT_PYTHON = process.env["PYTHON"] ?? "python3";

export function addStudy(program: Command, signal: AbortSignal): void {
  const study = program.command("study").description("run an experiment of a study file");
  addRun(study, signal);
  addReplay(study, DEFAULT_PYTHON, signal);
  addReport(study, signal);
  addDiff(study);
}

function addDiff(study: Command): void {
  study
    .command("diff")
    .description("compare two finished runs, as Markdown")
    .argument("<a>", "folder of a run")
    .argument("<b>", "folder of another run")
    .action(async (a: string, b: string) => {
      process.stdout.write(compareRuns(await readRun(a), await readRun(b)));
    });
}

interface ReportOptions {
  soFar?: boolean;
  python: string;
}

function addReport(study: Command, signal: AbortSignal): void {
  study
    .command("report")
    .description("write the report of a run again")
    .argument("<run>", "the run's folder")
    .option("--so-far", "of the finished cells of a run that goes on, into RUN/report-so-far")
    .option("--python <PATH>", "Python of the judges that need one", DEFAULT_PYTHON)
    .action(async (run: string, options: ReportOptions) => {
      const { report } = runFiles(run);
      const out = options.soFar ? `${report}-so-far` : report;
      const content = options.soFar ? await soFar(run, options, signal) : await readRun(run);
      await writeReport(content, out);
      process.stdout.write(`${path.join(out, "index.html")}\n`);
    });
}

async function soFar(run: string, { python }: ReportOptions, signal: AbortSignal) {
  const { study } = runFiles(run);
  const { judges, limits } = parseStudy(await readFile(study, "utf8"), study);
  return readSoFar(run, openJudges(judges, python), limits.judge_batch_answers, signal);
}

const RUN_HELP = `
The run's folder holds every answer as it comes. Run again, the command goes on where it was stopped:
nothing is lost, nothing is done twice. docs/study-file.md is the reference of the file.`;

function addRun(study: Command, signal: AbortSignal): void {
  const command = study
    .command("run")
    .description("run a study, or go on with one that was stopped")
    .argument("<file>", "study file (YAML)")
    .option("-o, --out <DIR>", "the run's folder (default: study-runs/NAME)")
    .option("--dry-run", "check the file, print the plan with its cost, and run nothing")
    .addOption(number("--tokens-per-second <X>", "with --dry-run: speed to reckon with"))
    .addOption(integer("--in-flight <N>", "requests at a time on each server", 1))
    .option("--python <PATH>", "Python of the judges that need one", DEFAULT_PYTHON)
    .addHelpText("after", RUN_HELP);
  addServerOptions(command).action(async (file: string, options: RunCommandOptions) => {
    const loaded = loadStudy(file);
    if (options.inFlight !== undefined) {
      loaded.config.limits.in_flight_per_server = options.inFlight;
    }
    if (options.dryRun) await dryRun(loaded, options, signal);
    else await run(loaded, options, signal);
  });
}

async function run(
  study: LoadedStudy,
  options: RunCommandOptions,
  signal: AbortSignal,
): Promise<void> {
  const folder = options.out ?? path.join("study-runs", study.config.name);
  const judges = openJudges(study.config.judges, options.python);
  await mkdir(folder, { recursive: true });
  const unlock = await lockFolder(folder);
  const progress = new StudyProgress();
  try {
    const result = await withServers(options, study, folder, signal, (servers) =>
      runStudy({
        ...{ study, folder, judges, ...servers },
        say: (text) => progress.say(text),
        onProgress: (phase, done, total) => progress.update(phase, done, total),
      }),
    );
    progress.stop();
    await finish(folder, result);
  } catch (error) {
    progress.stop();
    const { done } = progress;
    process.stderr.write(
      `llama-steer: ${done} answers are kept in ${folder}; go on with the same command: ` +
        `llama-steer ${process.argv.slice(2).map(quoted).join(" ")}\n`,
    );
    throw error;
  } finally {
    await unlock();
  }
}

/** A word as a shell takes it. */
const quoted = (word: string) =>
  /^[\w./:=@,+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

async function finish(folder: string, { timings }: RunResult): Promise<void> {
  const { report } = runFiles(folder);
  await writeReport(await readRun(folder), report);
  const minutes = (timings.generationSeconds + timings.judgingSeconds) / 60;
  process.stdout.write(
    `${timings.answers} answers, ${timings.generatedTokens} tokens in ${minutes.toFixed(1)} minutes: ` +
      `${path.join(report, "index.html")}\n`,
  );
}
