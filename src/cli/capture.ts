/** `llama-steer capture`: activations to a file. */
import { type Command, Option } from "commander";
import type {
  CallOptions,
  CaptureActivationsRequest,
  CaptureFinished,
  CaptureInput,
  CaptureSpec,
  LlamaSteerClient,
  TokenSelector,
} from "../client/client.js";
import { chatOf, readInputLines } from "./arguments/input.js";
import { matchTokenRange } from "./arguments/numbers.js";
import { argument, collect, layersOption } from "./arguments/options.js";
import { addSteerOption, type SteerOptions, steeringOf } from "./arguments/steering.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { UsageError } from "./exit.js";
import { CaptureFile } from "./files/capture-file.js";
import { formatBytes, progressBar } from "./terminal/progress.js";
import { proofLine } from "./terminal/proof.js";

const SITES = {
  "resid-pre": "SITE_RESID_PRE",
  "attn-out": "SITE_ATTN_OUT",
  "mlp-out": "SITE_MLP_OUT",
  "resid-post": "SITE_RESID_POST",
  "final-norm": "SITE_FINAL_NORM",
} as const;

const DTYPES = {
  float32: "D_TYPE_FLOAT32",
  bfloat16: "D_TYPE_BFLOAT16",
  float16: "D_TYPE_FLOAT16",
} as const;

type CaptureOptions = ConnectionOptions &
  SteerOptions & {
    prompt?: string[];
    chat?: string[];
    file?: string;
    site?: (keyof typeof SITES)[];
    layers?: number[];
    tokens: TokenSelector;
    mean?: boolean;
    beforeSteering?: boolean;
    dtype: keyof typeof DTYPES;
    out: string;
  };

export function addCapture(program: Command, signal: AbortSignal): void {
  const command = program
    .command("capture")
    .description("write activations of prompts to a .npy or .safetensors file")
    .requiredOption("-o, --out <FILE>", ".safetensors (everything) or .npy (one site)")
    .option("-p, --prompt <TEXT>", "prompt, as it stands; may be repeated", collect)
    .option(
      "-c, --chat <TEXT>",
      "message of a user, through the chat template; repeatable",
      collect,
    )
    .option("-f, --file <FILE>", "one prompt a line; .jsonl: a text or {messages} a line")
    .addOption(
      new Option("--site <SITE>", `${Object.keys(SITES).join(", ")}; may be repeated`).argParser(
        (text, before: string[] | undefined) => [...(before ?? []), argument(parseSite)(text)],
      ),
    )
    .addOption(layersOption("3-5,7 (default: all)"))
    .addOption(
      new Option("--tokens <WHICH>", "all, last or [START..END], negative: from the prompt's end")
        .argParser(argument(parseTokens))
        .default({ all: {} }, "all"),
    )
    .option("--mean", "one row: the mean over the tokens")
    .option("--before-steering", "the residual stream before the steering of its block")
    .addOption(
      new Option("--dtype <TYPE>", "type of the values")
        .choices(Object.keys(DTYPES))
        .default("float32"),
    );
  addConnectionOptions(addSteerOption(command)).action(async (options: CaptureOptions) => {
    const inputs = inputsOf(options);
    if (options.out.endsWith(".npy") && new Set(options.site).size > 1) {
      throw new UsageError("--out: .npy holds one site; use .safetensors for several");
    }
    const file = new CaptureFile(options.out);
    try {
      await withConnection(options, signal, ({ client, call }) =>
        captureAll(client, inputs, options, file, call),
      );
    } finally {
      file.close();
    }
  });
}

function parseSite(text: string): string {
  if (!Object.hasOwn(SITES, text))
    throw new UsageError(`there are ${Object.keys(SITES).join(", ")}`);
  return text;
}

function parseTokens(text: string): TokenSelector {
  if (text === "all") return { all: {} };
  if (text === "last") return { last: {} };
  const range = matchTokenRange(text);
  if (!range) throw new UsageError(`"${text}" is neither all, last nor a range such as [-3..]`);
  return { range };
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

function specOf(options: CaptureOptions): CaptureSpec {
  return {
    sites: (options.site ?? ["resid-post"]).map((site) => SITES[site]),
    layers: options.layers ?? [],
    tokens: { ...options.tokens, mean: options.mean ?? false },
    beforeSteering: options.beforeSteering ?? false,
    dtype: DTYPES[options.dtype],
  };
}

async function captureAll(
  client: LlamaSteerClient,
  inputs: readonly CaptureInput[],
  options: CaptureOptions,
  file: CaptureFile,
  call: CallOptions,
): Promise<void> {
  const { limits } = await client.model.get(call);
  const batchSize = Math.max(1, limits?.maxCaptureInputs ?? 1);
  const bar = progressBar("capturing", inputs.length, "inputs");
  let last: CaptureFinished | null = null;
  try {
    for (let first = 0; first < inputs.length; first += batchSize) {
      const request: CaptureActivationsRequest = {
        inputs: inputs.slice(first, first + batchSize),
        capture: specOf(options),
        steering: steeringOf(options),
      };
      const seen = new Set<number>();
      for await (const { activations, finished } of client.captureActivations(request, call)) {
        if (activations) {
          file.add(activations, first + activations.inputIndex);
          seen.add(activations.inputIndex);
          bar.update(first + seen.size, formatBytes(file.bytes));
        }
        if (finished) last = finished;
      }
    }
  } finally {
    bar.stop();
  }
  report(file, last, inputs.length, options);
}

function report(
  file: CaptureFile,
  finished: CaptureFinished | null,
  inputs: number,
  options: CaptureOptions,
): void {
  const shape = file.finish({
    model_fingerprint: finished?.modelFingerprint ?? "",
    inputs: String(inputs),
    before_steering: String(options.beforeSteering ?? false),
    steering: JSON.stringify(finished?.applied ?? []),
  });
  process.stdout.write(`${file.path}  ${shape}  ${formatBytes(file.bytes)}\n`);
  for (const steering of finished?.applied ?? []) process.stderr.write(`${proofLine(steering)}\n`);
}
