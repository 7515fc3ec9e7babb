/** `llama-steer probes`: linear probes on the residual stream. */
import { type Command, Option } from "commander";
import type { FitProbeRequest } from "../client/client.js";
import { type AdapterOptions, adapterOf } from "./arguments/adapter.js";
import {
  addTokenOptions,
  asChatOption,
  PAIRS_HELP,
  readPairs,
  readTexts,
  type TokenOptions,
  tokenRuleOf,
} from "./arguments/contrastive.js";
import { parseLabels } from "./arguments/labels.js";
import { collect, integer, number } from "./arguments/options.js";
import {
  addRandomControl,
  type RandomControlOptions,
  randomControlOf,
} from "./arguments/random-control.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { addProbeScore } from "./probes-score.js";
import { printProbe, probeSummary } from "./terminal/probe.js";

const METHODS = {
  "mean-difference": "METHOD_MEAN_DIFFERENCE",
  logistic: "METHOD_LOGISTIC",
} as const;

interface OutputOptions extends ConnectionOptions {
  json?: boolean;
}

interface FitOptions extends OutputOptions, TokenOptions, AdapterOptions, RandomControlOptions {
  pairs: string;
  method?: keyof typeof METHODS;
  layer?: number;
  label?: string[];
}

export function addProbes(program: Command, signal: AbortSignal): void {
  const probes = program
    .command("probes")
    .description("linear probes: fit, calibrate, score, list, show, delete");
  addFit(probes, signal);
  addCalibrate(probes, signal);
  addProbeScore(probes, signal);
  addList(probes, signal);
  addShow(probes, signal);
  addDelete(probes, signal);
}

function addFit(probes: Command, signal: AbortSignal): void {
  const command = probes
    .command("fit")
    .description("fit a probe to contrastive pairs and register it")
    .argument("<id>", "a-z, 0-9, '.', '_', '-'; at most 63 characters")
    .requiredOption("--pairs <FILE>", `${PAIRS_HELP}; the positive side scores higher`)
    .addOption(
      new Option("--method <METHOD>", "how (default: mean-difference)").choices(
        Object.keys(METHODS),
      ),
    )
    .addOption(integer("-l, --layer <N>", "block that is read (default: the middle one)"));
  addRandomControl(addTokenOptions(command))
    .option("--adapter <ID>", "read the pairs under this LoRA adapter")
    .option("--label <KEY=VALUE>", "free text; may be repeated", collect)
    .option("--json", "print the probe as JSON");
  addConnectionOptions(command).action(async (probeId: string, options: FitOptions) => {
    const { method, layer, label } = options;
    const request: FitProbeRequest = {
      probeId,
      pairs: readPairs(options.pairs, options.asChat),
      ...(method && { method: METHODS[method] }),
      ...(layer !== undefined && { layer }),
      ...tokenRuleOf(options),
      ...adapterOf(options),
      labels: parseLabels(label ?? []),
      ...randomControlOf(options),
    };
    const probe = await withConnection(options, signal, ({ client, call }) =>
      client.probes.fit(request, call),
    );
    printProbe(probe, options);
  });
}

interface CalibrateOptions extends OutputOptions, AdapterOptions {
  benign: string;
  fpr: number;
  asChat?: boolean;
}

function addCalibrate(probes: Command, signal: AbortSignal): void {
  const command = probes
    .command("calibrate")
    .description("set the threshold of a probe at a false-positive rate on benign texts")
    .argument("<id>", "id, or pinned id")
    .requiredOption("--benign <FILE>", "one text a line; .jsonl: a text or {messages} a line")
    .addOption(
      number("--fpr <X>", "share of the benign texts that may fire, [0, 1)").makeOptionMandatory(),
    )
    .addOption(asChatOption())
    .option("--adapter <ID>", "read them under this LoRA adapter (default: the probe's own)")
    .option("--json", "print the probe as JSON");
  addConnectionOptions(command).action(async (probeId: string, options: CalibrateOptions) => {
    const request = {
      probeId,
      benign: readTexts(options.benign, options.asChat),
      falsePositiveRate: options.fpr,
      ...adapterOf(options),
    };
    const probe = await withConnection(options, signal, ({ client, call }) =>
      client.probes.calibrate(request, call),
    );
    printProbe(probe, options);
  });
}

function addList(probes: Command, signal: AbortSignal): void {
  const command = probes
    .command("list")
    .description("list the probes")
    .option("--label <KEY=VALUE>", "only those with this label; may be repeated", collect)
    .option("--json", "one JSON object a line");
  addConnectionOptions(command).action(async (options: OutputOptions & { label?: string[] }) => {
    const filter = parseLabels(options.label ?? []);
    await withConnection(options, signal, async ({ client, call }) => {
      for await (const probe of client.probes.list(filter, call)) {
        process.stdout.write(`${options.json ? JSON.stringify(probe) : probeSummary(probe)}\n`);
      }
    });
  });
}

function addShow(probes: Command, signal: AbortSignal): void {
  const command = probes
    .command("show")
    .alias("get")
    .description("describe a probe")
    .argument("<id>", "id, or pinned id")
    .option("--json", "print the probe as JSON");
  addConnectionOptions(command).action(async (probeId: string, options: OutputOptions) => {
    const probe = await withConnection(options, signal, ({ client, call }) =>
      client.probes.get(probeId, call),
    );
    printProbe(probe, options);
  });
}

function addDelete(probes: Command, signal: AbortSignal): void {
  const command = probes
    .command("delete")
    .description("remove an id; a pinned id only if the content matches")
    .argument("<id>", "id, or pinned id");
  addConnectionOptions(command).action(async (probeId: string, options: ConnectionOptions) => {
    await withConnection(options, signal, ({ client, call }) =>
      client.probes.delete(probeId, call),
    );
    process.stdout.write(`deleted ${probeId}\n`);
  });
}
