/** `--help`, made from the schema. */
import { flagName, OPTION_KEYS } from "./load.js";
import { configSchema } from "./schema.js";
import { formatAddress } from "./values.js";

const HEAD = `Usage: llama-steer serve --model DIR [options]

Serves a Llama checkpoint over gRPC, with steering vectors.

Every option is also read from the environment (--max-batch-tokens: LLAMA_STEER_MAX_BATCH_TOKENS)
and from the JSON file of --config ("max_batch_tokens"). Flags win over the environment, the
environment over the file.

Options:`;

export function helpText(): string {
  const rows = OPTION_KEYS.map((key) => describe(key));
  rows.push(["--config FILE", "JSON file with options"], ["-h, --help", "shows this text"]);
  const width = Math.max(...rows.map(([usage]) => usage.length));
  const lines = rows.map(([usage, text]) => `  ${usage.padEnd(width)}  ${text}`);
  return `${HEAD}\n${lines.join("\n")}\n`;
}

function describe(key: string): [usage: string, text: string] {
  const schema = configSchema.shape[key as keyof typeof configSchema.shape];
  const meta = schema.meta() ?? {};
  const value = String(meta["value"] ?? "");
  const usage = value === "" ? `--${flagName(key)}` : `--${flagName(key)} ${value}`;
  const fallback = schema.safeParse(undefined);
  const text = String(meta["description"] ?? "");
  const shown = fallback.success ? showDefault(fallback.data) : "";
  return [usage, shown === "" ? text : `${text} (default ${shown})`];
}

function showDefault(value: unknown): string {
  if (value === undefined || value === false || Array.isArray(value)) return "";
  if (value === true) return "on";
  if (typeof value === "object" && value !== null && "host" in value && "port" in value) {
    return formatAddress({ host: String(value.host), port: Number(value.port) });
  }
  return String(value);
}
