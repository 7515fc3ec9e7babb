/** `llama-steer probes score`: scores of texts, and how well the probe tells labelled ones apart. */
import type { Command } from "commander";
import type { ContrastiveInput, ProbeInput, ScoreProbeResponse } from "../client/client.js";
import { type AdapterOptions, adapterOf } from "./arguments/adapter.js";
import { asChatOption, readTexts } from "./arguments/contrastive.js";
import { collect } from "./arguments/options.js";
import {
  addRandomControl,
  type RandomControlOptions,
  randomControlOf,
} from "./arguments/random-control.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { UsageError } from "./exit.js";
import { discriminationLine, probeSummary } from "./terminal/probe.js";
import { formatNumber } from "./terminal/proof.js";
import { table } from "./terminal/table.js";

interface ScoreOptions extends ConnectionOptions, RandomControlOptions, AdapterOptions {
  prompt?: string[];
  file?: string;
  positive?: string;
  negative?: string;
  asChat?: boolean;
  json?: boolean;
}

/** Characters of a text that a line shows. */
const TEXT_SHOWN = 60;

export function addProbeScore(probes: Command, signal: AbortSignal): void {
  const command = probes
    .command("score")
    .description("score texts; labelled ones give an AUROC beside that of random directions")
    .argument("<id>", "id, or pinned id")
    .option("-p, --prompt <TEXT>", "text to score; may be repeated", collect)
    .option("-f, --file <FILE>", "texts, one a line; .jsonl: a text or {messages} a line")
    .option("--positive <FILE>", "texts that should score high")
    .option("--negative <FILE>", "texts that should score low")
    .addOption(asChatOption())
    .option("--adapter <ID>", "read them under this LoRA adapter (default: the probe's own)");
  addRandomControl(command).option("--json", "print the whole response as JSON");
  addConnectionOptions(command).action(async (probeId: string, options: ScoreOptions) => {
    const inputs = inputsOf(options);
    const request = {
      probeId,
      inputs,
      ...adapterOf(options),
      ...randomControlOf(options),
    };
    const response = await withConnection(options, signal, ({ client, call }) =>
      client.probes.score(request, call),
    );
    process.stdout.write(
      options.json ? `${JSON.stringify(response)}\n` : describeScores(response, inputs),
    );
  });
}

function inputsOf({ prompt = [], file, positive, negative, asChat }: ScoreOptions): ProbeInput[] {
  const texts = (name: string | undefined) => (name === undefined ? [] : readTexts(name, asChat));
  const prompts: ContrastiveInput[] = prompt.map((text) => {
    return asChat ? { chat: { messages: [{ role: "user", content: text }] } } : { prompt: text };
  });
  const inputs: ProbeInput[] = [
    ...[...prompts, ...texts(file)].map((input) => ({ input })),
    ...texts(positive).map((input) => ({ input, positive: true })),
    ...texts(negative).map((input) => ({ input, positive: false })),
  ];
  if (inputs.length === 0) {
    throw new UsageError("say what to score: --prompt, --file, --positive or --negative");
  }
  return inputs;
}

function describeScores(response: ScoreProbeResponse, inputs: readonly ProbeInput[]): string {
  const { scores, fired, discrimination, probe } = response;
  const labelled = inputs.some(({ positive }) => positive !== undefined);
  const rows = scores.map((score, i) => [
    formatNumber(score),
    fired.length > 0 ? (fired[i] ? "fires" : "") : "",
    labelled ? labelOf(inputs[i]) : "",
    shortText(inputs[i]?.input ?? {}),
  ]);
  const columns = [
    { title: "score" },
    { title: "", align: "left" as const },
    { title: "", align: "left" as const },
    { title: "text", align: "left" as const },
  ];
  const head = probe ? `${probeSummary(probe)}\n` : "";
  const verdict = discrimination ? `${discriminationLine(discrimination)}\n` : "";
  return head + table(columns, rows) + verdict;
}

function labelOf(input: ProbeInput | undefined): string {
  if (input?.positive === undefined) return "";
  return input.positive ? "positive" : "negative";
}

/** The end of the text: it is what is read. */
function shortText({ prompt, chat, completion }: ContrastiveInput): string {
  const text = (prompt ?? chat?.messages?.at(-1)?.content ?? "") + (completion ?? "");
  const line = [...text.replaceAll(/\s+/g, " ")];
  const tail = line.slice(-TEXT_SHOWN).join("");
  return JSON.stringify(line.length > TEXT_SHOWN ? `…${tail}` : tail);
}
