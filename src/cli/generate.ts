/** `llama-steer generate`: the answer on standard output, the proof of steering on standard error. */
import type { Command } from "commander";
import type {
  AppliedSteering,
  CallOptions,
  GenerateRequest,
  LlamaSteerClient,
  ProbeUse,
} from "../client/client.js";
import { type AdapterOptions, adapterOf, adapterOption } from "./arguments/adapter.js";
import { type InputOptions, readInput } from "./arguments/input.js";
import { argument } from "./arguments/options.js";
import { PROBE_HELP, parseProbe } from "./arguments/probe-syntax.js";
import { addSamplingOptions, type SamplingOptions, samplingOf } from "./arguments/sampling.js";
import { addSteerOption, type SteerOptions, steeringOf } from "./arguments/steering.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { Observations } from "./terminal/observations.js";
import { proofLine, speedLine } from "./terminal/proof.js";

interface GenerateOptions
  extends ConnectionOptions,
    InputOptions,
    SteerOptions,
    SamplingOptions,
    AdapterOptions {
  probe?: ProbeUse[];
  compareUnsteered?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function addGenerate(program: Command, signal: AbortSignal): void {
  const command = program
    .command("generate")
    .description("generate text, steered or not")
    .option("-p, --prompt <TEXT>", "prompt, continued as it stands")
    .option("-c, --chat <TEXT>", "message of a user, through the chat template")
    .option("--system <TEXT>", "system message for --chat")
    .option("-f, --file <FILE>", "prompt from a file, - is standard input; .json: messages");
  addSteerOption(command)
    .addOption(adapterOption())
    .option("--probe <PROBE>", PROBE_HELP, (text, before: ProbeUse[] | undefined) => [
      ...(before ?? []),
      argument(parseProbe)(text),
    ])
    .option("--compare-unsteered", "KL(steered ‖ unsteered) of each token, from the same batch");
  addSamplingOptions(command)
    .option("--json", "print the whole response as JSON")
    .option("-q, --quiet", "no proof and no figures on standard error");
  addConnectionOptions(command).action(async (options: GenerateOptions) => {
    const request: GenerateRequest = {
      ...readInput(options),
      steering: steeringOf(options),
      sampling: samplingOf(options),
      ...adapterOf(options),
      probes: options.probe ?? [],
      compareUnsteered: options.compareUnsteered ?? false,
    };
    await withConnection(options, signal, async ({ client, call }) => {
      if (options.json) {
        process.stdout.write(`${JSON.stringify(await client.generate(request, call))}\n`);
      } else if ((options.n ?? 1) > 1) await printWhole(client, request, call, options);
      else await printStream(client, request, call, options);
    });
  });
}

async function printStream(
  client: LlamaSteerClient,
  request: GenerateRequest,
  call: CallOptions,
  options: GenerateOptions,
): Promise<void> {
  let observations = new Observations([]);
  let seed: string | undefined;
  for await (const { started, delta, finished } of client.generateStream(request, call)) {
    if (started) {
      seed = started.seed;
      observations = new Observations(started.probes);
    }
    if (delta) {
      process.stdout.write(delta.text);
      observations.add(delta);
    }
    if (finished) {
      process.stdout.write("\n");
      const speed = speedLine(finished.usage, finished.timings, seed);
      printFigures(options, finished.applied, [...observations.lines(), speed]);
    }
  }
}

/** Several completions cannot share the screen while they stream. */
async function printWhole(
  client: LlamaSteerClient,
  request: GenerateRequest,
  call: CallOptions,
  options: GenerateOptions,
): Promise<void> {
  const response = await client.generate(request, call);
  const observed: string[] = [];
  for (const [index, completion] of response.completions.entries()) {
    process.stdout.write(`[${index + 1}] ${completion.text}\n`);
    const observations = new Observations(response.probes);
    observations.add(completion);
    observed.push(...observations.lines().map((line) => `[${index + 1}] ${line}`));
  }
  const speed = speedLine(response.usage, response.timings, response.seed);
  printFigures(options, response.applied, [...observed, speed]);
}

function printFigures(
  options: GenerateOptions,
  applied: readonly AppliedSteering[],
  lines: readonly string[],
): void {
  if (options.quiet) return;
  for (const line of [...applied.map(proofLine), ...lines]) process.stderr.write(`${line}\n`);
}
