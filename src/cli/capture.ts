/** `llama-steer capture`: activations of prompts, or of generations, to a file. */
import { type Command, Option } from "commander";
import type {
  CallOptions,
  CaptureActivationsRequest,
  CapturedCompletion,
  CaptureFinished,
  CaptureInput,
  CaptureSpec,
  LlamaSteerClient,
  Sampling,
  Site,
  TokenSelector,
} from "../client/client.js";
import { type AdapterOptions, adapterOf, adapterOption } from "./arguments/adapter.js";
import { sitesOption, tokensOption } from "./arguments/capture.js";
import { chatOf, readInputLines } from "./arguments/input.js";
import { collect, layersOption } from "./arguments/options.js";
import { addSamplingOptions, type SamplingOptions, samplingOf } from "./arguments/sampling.js";
import { addSteerOption, type SteerOptions, steeringOf } from "./arguments/steering.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { UsageError } from "./exit.js";
import { CaptureFile } from "./files/capture-file.js";
import { formatBytes, progressBar } from "./terminal/progress.js";
import { proofLine } from "./terminal/proof.js";

const DTYPES = {
  float32: "D_TYPE_FLOAT32",
  bfloat16: "D_TYPE_BFLOAT16",
  float16: "D_TYPE_FLOAT16",
} as const;

interface CaptureOptions extends ConnectionOptions, SteerOptions, AdapterOptions, SamplingOptions {
  prompt?: string[];
  chat?: string[];
  file?: string;
  site?: Site[];
  layers?: number[];
  tokens: TokenSelector;
  mean?: boolean;
  beforeSteering?: boolean;
  dtype: keyof typeof DTYPES;
  duringGeneration?: boolean;
  out: string;
  json?: boolean;
}

export function addCapture(program: Command, signal: AbortSignal): void {
  const command = program
    .command("capture")
    .description("write activations of prompts, or of generations, to a file")
    .requiredOption("-o, --out <FILE>", ".safetensors (everything) or .npy (one site)")
    .option("-p, --prompt <TEXT>", "prompt, as it stands; may be repeated", collect)
    .option(
      "-c, --chat <TEXT>",
      "message of a user, through the chat template; repeatable",
      collect,
    )
    .option("-f, --file <FILE>", "one prompt a line; .jsonl: a text or {messages} a line")
    .addOption(sitesOption())
    .addOption(layersOption("3-5,7 (default: all)"))
    .addOption(tokensOption("all"))
    .option("--mean", "one row: the mean over the tokens")
    .option("--before-steering", "the residual stream before the steering of its block")
    .addOption(
      new Option("--dtype <TYPE>", "type of the values")
        .choices(Object.keys(DTYPES))
        .default("float32"),
    )
    .option("--during-generation", "generate after each prompt, print it, and capture that too")
    .option("--json", "print one JSON object: the file, the completions and the proof");
  addSteerOption(command).addOption(adapterOption());
  addSamplingOptions(command);
  addConnectionOptions(command).action(async (options: CaptureOptions) => {
    const inputs = inputsOf(options);
    const request = requestOf(options);
    const file = new CaptureFile(options.out);
    try {
      await withConnection(options, signal, async ({ client, call }) => {
        const captured = await captureAll(client, inputs, request, file, call);
        report(file, captured, inputs.length, options);
      });
    } finally {
      file.close();
    }
  });
}

function inputsOf({ prompt = [], chat = [], file }: CaptureOptions): CaptureInput[] {
  const inputs: CaptureInput[] = [
    ...prompt.map((text) => ({ prompt: text })),
    ...chat.map((text) => ({ chat: chatOf(text) })),
    ...(file === undefined ? [] : readInputLines(file)),
  ];
  if (inputs.length === 0) throw new UsageError("say what to read: --prompt, --chat or --file");
  return inputs;
}

/** Everything but the inputs. */
function requestOf(options: CaptureOptions): CaptureActivationsRequest {
  const capture: CaptureSpec = {
    sites: options.site ?? ["SITE_RESID_POST"],
    layers: options.layers ?? [],
    tokens: { ...options.tokens, mean: options.mean ?? false },
    beforeSteering: options.beforeSteering ?? false,
    dtype: DTYPES[options.dtype],
  };
  if (options.out.endsWith(".npy") && (capture.sites?.length ?? 0) > 1) {
    throw new UsageError("--out: .npy holds one site; use .safetensors for several");
  }
  const sampling: Sampling = samplingOf(options);
  if (Object.keys(sampling).length > 0 && !options.duringGeneration) {
    throw new UsageError("options of sampling need --during-generation");
  }
  return {
    capture,
    steering: steeringOf(options),
    ...adapterOf(options),
    ...(options.duringGeneration && { sampling }),
  };
}

interface Captured {
  /** In the order in which they came. */
  completions: { input: number; completion: CapturedCompletion }[];
  /** Of the last batch. */
  finished: CaptureFinished | null;
}

/** As many calls as the server's limit on inputs makes necessary. */
async function captureAll(
  client: LlamaSteerClient,
  inputs: readonly CaptureInput[],
  request: CaptureActivationsRequest,
  file: CaptureFile,
  call: CallOptions,
): Promise<Captured> {
  const { limits } = await client.model.get(call);
  const batchSize = Math.max(1, limits?.maxCaptureInputs ?? 1);
  const bar = progressBar("capturing", inputs.length, "inputs");
  const captured: Captured = { completions: [], finished: null };
  try {
    for (let first = 0; first < inputs.length; first += batchSize) {
      const batch = { ...request, inputs: inputs.slice(first, first + batchSize) };
      const seen = new Set<number>();
      for await (const message of client.captureActivations(batch, call)) {
        const { activations, completion, finished } = message;
        if (activations) {
          file.add(activations, first + activations.inputIndex);
          seen.add(activations.inputIndex);
          bar.update(first + seen.size, formatBytes(file.bytes));
        }
        if (completion) {
          captured.completions.push({ input: first + completion.inputIndex, completion });
        }
        if (finished) captured.finished = finished;
      }
    }
  } finally {
    bar.stop();
  }
  captured.completions.sort((a, b) => a.input - b.input);
  return captured;
}

function report(
  file: CaptureFile,
  { completions, finished }: Captured,
  inputs: number,
  options: CaptureOptions,
): void {
  const applied = finished?.applied ?? [];
  const shape = file.finish({
    model_fingerprint: finished?.modelFingerprint ?? "",
    inputs: String(inputs),
    before_steering: String(options.beforeSteering ?? false),
    steering: JSON.stringify(applied),
    ...(completions.length > 0 && { completions: JSON.stringify(completions.map(textOf)) }),
  });
  if (options.json) {
    const answers = completions.map(({ input, completion }) => ({ input, ...completion }));
    const result = { file: file.path, shape, bytes: file.bytes, completions: answers, applied };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  for (const { input, completion } of completions) {
    const text = completion.completion?.text ?? "";
    process.stdout.write(inputs > 1 ? `[${input + 1}] ${text}\n` : `${text}\n`);
  }
  process.stdout.write(`${file.path}  ${shape}  ${formatBytes(file.bytes)}\n`);
  for (const steering of applied) process.stderr.write(`${proofLine(steering)}\n`);
}

const textOf = ({ completion }: { completion: CapturedCompletion }) =>
  completion.completion?.text ?? "";
