/** Every command but `serve`: clients of the public contract. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { DEFAULT_ADDRESS } from "../client/client.js";
import { addAdapters } from "./adapters.js";
import { addBake } from "./bake.js";
import { addCapture } from "./capture.js";
import { addDemo } from "./demo.js";
import { errorLine, exitCodeOf } from "./exit.js";
import { ExitCode } from "./exit-code.js";
import { addGenerate } from "./generate.js";
import { addLens } from "./lens.js";
import { addModel } from "./model.js";
import { addProbes } from "./probes.js";
import { addScore } from "./score.js";
import { describeServe } from "./serve.js";
import { addStudy } from "./study.js";
import { addTokens } from "./tokens.js";
import { addVectors } from "./vectors.js";

function buildProgram(signal: AbortSignal): Command {
  const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const { version } = JSON.parse(manifest) as { version: string };
  const program = new Command("llama-steer")
    .description("gRPC inference for Llama checkpoints with steering vectors")
    .version(version)
    .showHelpAfterError("(add --help for the options)")
    .exitOverride();
  describeServe(program);
  addGenerate(program, signal);
  addVectors(program, signal);
  addProbes(program, signal);
  addCapture(program, signal);
  addLens(program, signal);
  addScore(program, signal);
  addModel(program, signal);
  addAdapters(program, signal);
  addBake(program, signal);
  addStudy(program, signal);
  addTokens(program);
  addDemo(program, signal);
  return program;
}

/** Resolves to the exit code. */
export async function runClient(argv: string[]): Promise<number> {
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort());
  process.once("SIGTERM", () => interrupt.abort());
  try {
    await buildProgram(interrupt.signal).parseAsync(argv, { from: "user" });
    return ExitCode.DONE;
  } catch (error) {
    // Commander has printed its own message; 0 is --help and --version.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : ExitCode.USAGE;
    const interrupted = interrupt.signal.aborted;
    const text = interrupted ? "interrupted" : errorLine(error, serverOf(argv));
    process.stderr.write(`llama-steer: ${text}\n`);
    return exitCodeOf(error, interrupted);
  }
}

/** The address as the user gave it, for messages. */
function serverOf(argv: readonly string[]): string {
  const index = argv.findIndex((word) => word === "--server" || word.startsWith("--server="));
  const given = argv[index]?.split("=")[1] ?? argv[index + 1];
  return (index >= 0 && given) || process.env["LLAMA_STEER_SERVER"] || DEFAULT_ADDRESS;
}
