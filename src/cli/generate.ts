/** `llama-steer generate`: the answer on standard output, the proof of steering on standard error. */
import type { Command } from "commander";
import type {
  AppliedSteering,
  CallOptions,
  GenerateRequest,
  LlamaSteerClient,
} from "../client/client.js";
import { type InputOptions, readInput } from "./arguments/input.js";
import { addSamplingOptions, type SamplingOptions, samplingOf } from "./arguments/sampling.js";
import { addSteerOption, type SteerOptions, steeringOf } from "./arguments/steering.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { proofLine, speedLine } from "./terminal/proof.js";

type GenerateOptions = ConnectionOptions &
  InputOptions &
  SteerOptions &
  SamplingOptions & { json?: boolean; quiet?: boolean };

export function addGenerate(program: Command, signal: AbortSignal): void {
  const command = program
    .command("generate")
    .description("generate text, steered or not")
    .option("-p, --prompt <TEXT>", "prompt, continued as it stands")
    .option("-c, --chat <TEXT>", "message of a user, through the chat template")
    .option("--system <TEXT>", "system message for --chat")
    .option("-f, --file <FILE>", "prompt from a file, - is standard input; .json: messages");
  addSteerOption(command);
  addSamplingOptions(command)
    .option("--json", "print the whole response as JSON")
    .option("-q, --quiet", "no proof and no figures on standard error");
  addConnectionOptions(command).action(async (options: GenerateOptions) => {
    const request: GenerateRequest = {
      ...readInput(options),
      steering: steeringOf(options),
      sampling: samplingOf(options),
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
  let seed: string | undefined;
  for await (const { started, delta, finished } of client.generateStream(request, call)) {
    if (started) seed = started.seed;
    if (delta) process.stdout.write(delta.text);
    if (finished) {
      process.stdout.write("\n");
      printFigures(options, finished.applied, speedLine(finished.usage, finished.timings, seed));
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
  for (const [index, { text }] of response.completions.entries()) {
    process.stdout.write(`[${index + 1}] ${text}\n`);
  }
  const speed = speedLine(response.usage, response.timings, response.seed);
  printFigures(options, response.applied, speed);
}

function printFigures(options: GenerateOptions, applied: AppliedSteering[], speed: string): void {
  if (options.quiet) return;
  for (const steering of applied) process.stderr.write(`${proofLine(steering)}\n`);
  process.stderr.write(`${speed}\n`);
}
