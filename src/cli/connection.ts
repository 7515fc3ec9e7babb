/** Options that every client command has, and the client made from them. */
import { readFileSync } from "node:fs";
import { type Command, Option } from "commander";
import {
  type CallOptions,
  DEFAULT_ADDRESS,
  LlamaSteerClient,
  type TlsOptions,
} from "../client/client.js";
import { number } from "./arguments/options.js";
import { UsageError } from "./exit.js";

export interface ConnectionOptions {
  server: string;
  tokenFile?: string;
  tls?: boolean;
  tlsCa?: string;
  tlsCert?: string;
  tlsKey?: string;
  timeout?: number;
}

export function addConnectionOptions(command: Command): Command {
  return addCredentialOptions(
    command
      .optionsGroup("Connection:")
      .addOption(
        new Option("--server <HOST:PORT>", "server to speak to")
          .default(DEFAULT_ADDRESS)
          .env("LLAMA_STEER_SERVER"),
      )
      .addOption(number("--timeout <SECONDS>", "deadline of each call (default: none)")),
  );
}

export function addCredentialOptions(command: Command): Command {
  return command
    .option("--token-file <FILE>", "file with the bearer token (or LLAMA_STEER_TOKEN)")
    .option("--tls", "TLS with the system's certificate authorities")
    .option("--tls-ca <FILE>", "TLS with these certificate authorities (PEM)")
    .option("--tls-cert <FILE>", "this client's certificate (PEM), for mutual TLS")
    .option("--tls-key <FILE>", "this client's key (PEM), for mutual TLS");
}

export interface Connection {
  client: LlamaSteerClient;
  /** Given to every call: deadline, and cancellation on an interrupt. */
  call: CallOptions;
}

/** Does `work` with a client that is closed afterwards. `signal` is aborted on an interrupt. */
export async function withConnection<T>(
  options: ConnectionOptions,
  signal: AbortSignal,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const client = clientOf(options, options.server);
  const call: CallOptions = {
    signal,
    ...(options.timeout !== undefined && { timeoutMs: options.timeout * 1000 }),
  };
  try {
    return await work({ client, call });
  } finally {
    client.close();
  }
}

/** A client of `address` with the options' token and certificates. Throws a UsageError. */
export function clientOf(
  options: Omit<ConnectionOptions, "server">,
  address: string,
): LlamaSteerClient {
  const token = tokenOf(options);
  const tls = tlsOf(options);
  return openClient({ address, ...(token !== undefined && { token }), ...(tls && { tls }) });
}

function openClient(options: ConstructorParameters<typeof LlamaSteerClient>[0]): LlamaSteerClient {
  try {
    return new LlamaSteerClient(options);
  } catch (error) {
    throw new UsageError(`connection options: ${(error as Error).message}`);
  }
}

function tokenOf({ tokenFile }: Omit<ConnectionOptions, "server">): string | undefined {
  if (tokenFile === undefined) return process.env["LLAMA_STEER_TOKEN"];
  try {
    return readFileSync(tokenFile, "utf8").trim();
  } catch (error) {
    throw new UsageError(`--token-file: ${(error as Error).message}`);
  }
}

function tlsOf({
  tls,
  tlsCa,
  tlsCert,
  tlsKey,
}: Omit<ConnectionOptions, "server">): TlsOptions | undefined {
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new UsageError("--tls-cert and --tls-key belong together");
  }
  if (!tls && tlsCa === undefined && tlsCert === undefined) return undefined;
  return {
    ...(tlsCa !== undefined && { caFile: tlsCa }),
    ...(tlsCert !== undefined && { certFile: tlsCert }),
    ...(tlsKey !== undefined && { keyFile: tlsKey }),
  };
}
