/** Flags over environment over file over defaults. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { z } from "zod";
import { ConfigError } from "./config-error.js";
import { standardTraceOptions } from "./opentelemetry.js";
import { type Config, configSchema } from "./schema.js";
import { isLoopback } from "./values.js";

type Values = Record<string, unknown>;

export const OPTION_KEYS: readonly string[] = Object.keys(configSchema.shape);

/** maxBatchTokens -> max-batch-tokens */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** maxBatchTokens -> max_batch_tokens */
export function fileKey(key: string): string {
  return flagName(key).replaceAll("-", "_");
}

/** maxBatchTokens -> LLAMA_STEER_MAX_BATCH_TOKENS */
export function environmentName(key: string): string {
  return `LLAMA_STEER_${fileKey(key).toUpperCase()}`;
}

/** Null: help was asked for. Throws a ConfigError that names the option and where it stands. */
export function loadConfig(argv: readonly string[], environment: NodeJS.ProcessEnv): Config | null {
  const flags = readFlags(argv);
  if (flags["help"] === true) return null;
  const { config: file = environment["LLAMA_STEER_CONFIG"], ...fromFlags } = flags;
  const layers: [nameOf: (key: string) => string, values: Values][] = [
    [(key) => `${file}: ${fileKey(key)}`, typeof file === "string" ? readFile(file) : {}],
    [environmentName, readEnvironment(environment)],
    [(key) => `--${flagName(key)}`, fromFlags],
  ];
  const values: Values = {};
  const names = new Map<string, string>();
  for (const { key, name, value } of standardTraceOptions(environment)) {
    values[key] = value;
    names.set(key, name);
  }
  for (const [nameOf, layer] of layers) {
    for (const [key, value] of Object.entries(layer)) {
      values[key] = value;
      names.set(key, nameOf(key));
    }
  }
  const parsed = configSchema.safeParse(values);
  if (!parsed.success) throw new ConfigError(describe(parsed.error, names));
  return checked(parsed.data);
}

function describe(error: z.ZodError, names: ReadonlyMap<string, string>): string {
  return error.issues
    .map((issue) => {
      const key = String(issue.path[0]);
      if (!names.has(key)) return `--${flagName(key)} is required`;
      return `${names.get(key)}: ${issue.message}`;
    })
    .join("; ");
}

/** Settings that only make sense together. */
function checked(parsed: z.output<typeof configSchema>): Config {
  const local = isLoopback(parsed.listen) && isLoopback(parsed.http);
  const tls = parsed.tlsCert !== undefined && parsed.tlsKey !== undefined;
  if ((parsed.tlsCert === undefined) !== (parsed.tlsKey === undefined)) {
    throw new ConfigError("--tls-cert and --tls-key must be given together");
  }
  if (parsed.tlsClientCa !== undefined && !tls) {
    throw new ConfigError("--tls-client-ca needs --tls-cert and --tls-key");
  }
  const authenticates = parsed.tokensFile !== undefined || parsed.tlsClientCa !== undefined;
  if (!local && !(tls && authenticates) && !parsed.insecureListen) {
    const lacks = tls ? "--tokens-file or --tls-client-ca" : "TLS";
    throw new ConfigError(
      `listening beyond loopback without ${lacks} needs --insecure-listen: everyone who reaches the ` +
        "port could use the model and change the registry",
    );
  }
  if (parsed.maxCaptureBufferBytes < parsed.maxCaptureStreamBytes) {
    throw new ConfigError("--max-capture-buffer-bytes is less than --max-capture-stream-bytes");
  }
  const ids = parsed.adapter.map(({ id }) => id);
  const twice = ids.find((id, index) => ids.indexOf(id) < index);
  if (twice !== undefined) throw new ConfigError(`--adapter: "${twice}" is named twice`);
  return { ...parsed, capture: parsed.capture ?? isLoopback(parsed.listen) };
}

function readFlags(argv: readonly string[]): Values {
  const keys = [...OPTION_KEYS, "config"];
  const options = Object.fromEntries([
    ...keys.map((key) => [
      flagName(key),
      {
        type: key === "insecureListen" ? ("boolean" as const) : ("string" as const),
        multiple: key === "adapter",
      },
    ]),
    ["help", { type: "boolean" as const, short: "h" }],
  ]);
  try {
    const { values } = parseArgs({ args: [...argv], options, strict: true });
    const keyOf = new Map([...keys, "help"].map((key) => [flagName(key), key]));
    return Object.fromEntries(
      Object.entries(values).map(([flag, value]) => [keyOf.get(flag) ?? flag, value]),
    );
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error));
  }
}

/** Other names that begin alike are not ours: Kubernetes sets LLAMA_STEER_PORT for a Service. */
function readEnvironment(environment: NodeJS.ProcessEnv): Values {
  const values: Values = {};
  for (const key of OPTION_KEYS) {
    const value = environment[environmentName(key)];
    if (value !== undefined && value !== "") values[key] = value;
  }
  return values;
}

/** A JSON object with the option names in snake_case. */
function readFile(file: string): Values {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new ConfigError(`${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new ConfigError(`${file}: must hold a JSON object`);
  }
  const keys = new Map(OPTION_KEYS.map((key) => [fileKey(key), key]));
  return Object.fromEntries(
    Object.entries(json).map(([name, value]) => {
      const key = keys.get(name);
      if (key === undefined) throw new ConfigError(`${file}: unknown key "${name}"`);
      return [key, value];
    }),
  );
}
