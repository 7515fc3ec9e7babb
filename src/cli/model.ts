/** `llama-steer model`: what is served. */
import type { Command } from "commander";
import type { GetModelResponse } from "../client/client.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { formatBytes } from "./terminal/progress.js";
import { shortDigest } from "./terminal/proof.js";

export function addModel(program: Command, signal: AbortSignal): void {
  const command = program
    .command("model")
    .description("the model that is served, and the limits in force")
    .option("--json", "print the whole response as JSON");
  addConnectionOptions(command).action(async (options: ConnectionOptions & { json?: boolean }) => {
    const model = await withConnection(options, signal, ({ client, call }) =>
      client.model.get(call),
    );
    process.stdout.write(options.json ? `${JSON.stringify(model)}\n` : describe(model));
  });
}

function describe(model: GetModelResponse): string {
  const { architecture, device, limits } = model;
  const adapters = model.adapterDetails
    .map(({ adapterId, digest }) => `${adapterId}@${shortDigest(digest)}`)
    .join(", ");
  const rows: [string, string][] = [
    ["name", model.name],
    ["fingerprint", model.fingerprint],
    [
      "architecture",
      `${architecture?.layers} blocks × ${architecture?.hiddenSize}, MLP ${architecture?.intermediateSize}, ` +
        `${architecture?.queryHeads} query and ${architecture?.kvHeads} KV heads of ${architecture?.headSize}, ` +
        `vocabulary ${architecture?.vocabSize}`,
    ],
    ["context", `${model.contextTokens} tokens`],
    ["weights, KV cache", `${model.dtype}, ${model.kvDtype}`],
    ["device", `${device?.kind} ${device?.name} (${device?.isa}, ${device?.threads} threads)`],
    ["KV cache holds", `${limits?.kvCacheTokens} tokens`],
    ["adapters", adapters || "none"],
    ...(model.mergedAdapterDigest
      ? [["merged adapter", shortDigest(model.mergedAdapterDigest)] satisfies [string, string]]
      : []),
    ["chat template", model.chatTemplate ? "yes" : "no"],
    ["capture", model.captureEnabled ? "on" : "off"],
    ["registry revision", String(model.registryRevision)],
    ["largest message", formatBytes(limits?.maxMessageBytes ?? 0)],
    ["server", model.serverVersion],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("");
}
