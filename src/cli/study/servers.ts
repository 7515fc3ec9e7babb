/** The servers that a study command speaks to: those that are named, or one of its own. */
import { setMaxListeners } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { type Command, Option } from "commander";
import { LlamaSteerClient } from "../../client/client.js";
import type { LoadedStudy } from "../../study/file/load.js";
import type { RunOptions } from "../../study/run/run.js";
import { collect } from "../arguments/options.js";
import { addCredentialOptions, type ConnectionOptions, clientOf } from "../connection.js";
import { startDemoServer } from "../demo-server.js";
import { CommandError, UsageError } from "../exit.js";
import { serveBaked } from "./baked.js";

export interface ServerOptions extends Omit<ConnectionOptions, "server"> {
  server?: string[];
  bakedServer?: string;
  serve?: boolean;
  model?: string;
  adapter?: string[];
}

export function addServerOptions(command: Command): Command {
  return addCredentialOptions(
    command
      .optionsGroup("Connection:")
      .addOption(
        new Option(
          "--server <HOST:PORT>",
          "server to speak to; repeated: replicas that share the work (default: LLAMA_STEER_SERVER)",
        )
          .argParser(collect)
          .conflicts(["serve"]),
      )
      .option(
        "--baked-server <HOST:PORT>",
        "server of the baked checkpoint, for the step `baked` without --serve",
      )
      .option("--serve", "start a server for the time of the command")
      .option("--model <DIR>", "with --serve: the checkpoint (default: that of the study file)")
      .option(
        "--adapter <ID=DIR>",
        "with --serve: adapters (default: those of the study file)",
        collect,
      ),
  );
}

export interface StudyServers {
  clients: LlamaSteerClient[];
  openBaked: RunOptions["openBaked"];
  /** Aborted when the caller's is, and when a server of one's own ends. */
  signal: AbortSignal;
}

/** True where the command line, or the environment, says which server. */
export const namesServer = ({ server, serve }: ServerOptions): boolean =>
  serve === true || server !== undefined || process.env["LLAMA_STEER_SERVER"] !== undefined;

/** Does `work` with clients that are closed, and a server that is stopped, afterwards. */
export async function withServers<T>(
  options: ServerOptions,
  study: Pick<LoadedStudy, "file" | "config">,
  runFolder: string,
  signal: AbortSignal,
  work: (servers: StudyServers) => Promise<T>,
): Promise<T> {
  // Every call in flight listens.
  setMaxListeners(0, signal);
  if (options.serve) return withOwnServer(options, study, runFolder, signal, work);
  if (options.model !== undefined || options.adapter !== undefined) {
    throw new UsageError("--model and --adapter belong to --serve");
  }
  const fromEnvironment = process.env["LLAMA_STEER_SERVER"];
  const addresses = options.server ?? (fromEnvironment ? [fromEnvironment] : []);
  if (addresses.length === 0) throw new UsageError("name a server: --server HOST:PORT, or --serve");
  const clients = addresses.map((address) => clientOf(options, address));
  const { bakedServer } = options;
  const openBaked =
    bakedServer === undefined
      ? undefined
      : async () => {
          const client = clientOf(options, bakedServer);
          return { client, close: async () => client.close() };
        };
  try {
    return await work({ clients, openBaked, signal });
  } finally {
    for (const client of clients) client.close();
  }
}

async function withOwnServer<T>(
  options: ServerOptions,
  study: Pick<LoadedStudy, "file" | "config">,
  runFolder: string,
  signal: AbortSignal,
  work: (servers: StudyServers) => Promise<T>,
): Promise<T> {
  const { model, serve } = ownServer(options, study);
  const server = await startDemoServer(["--model", model, ...serve], signal);
  const ended = new AbortController();
  let stopping = false;
  void server.exited.then(() => {
    if (!stopping) ended.abort(new CommandError("the server of this command has ended"));
  });
  const client = new LlamaSteerClient({ address: server.address });
  const both = AbortSignal.any([signal, ended.signal]);
  setMaxListeners(0, both);
  const baked = { model, serve, runFolder };
  try {
    return await work({
      clients: [client],
      openBaked: (plan, cell) => serveBaked(plan, cell, baked, both),
      signal: both,
    });
  } catch (error) {
    throw ended.signal.aborted ? ended.signal.reason : error;
  } finally {
    stopping = true;
    client.close();
    await server.stop();
  }
}

/** Checkpoint and further arguments of `serve`, from the command line or else from the study file. */
function ownServer(
  options: ServerOptions,
  { file, config }: Pick<LoadedStudy, "file" | "config">,
): { model: string; serve: string[] } {
  const beside = (name: string) => path.resolve(path.dirname(file), name);
  const model = options.model ?? (config.serve && beside(config.serve.checkpoint));
  if (model === undefined) throw new UsageError("--serve needs --model DIR: the study names none");
  if (!existsSync(path.join(model, "config.json"))) {
    throw new UsageError(`${model}: no checkpoint there (config.json is missing)`);
  }
  const adapters =
    options.adapter ??
    Object.entries(config.serve?.adapters ?? {}).map(([id, folder]) => `${id}=${beside(folder)}`);
  const serve = [
    ...adapters.flatMap((adapter) => ["--adapter", adapter]),
    ...(config.serve?.options ?? []),
  ];
  return { model, serve };
}
