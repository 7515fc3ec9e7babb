/** `llama-steer adapters`: LoRA adapters of the server. */
import type { Command } from "commander";
import type { Adapter } from "../client/client.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";

interface OutputOptions extends ConnectionOptions {
  json?: boolean;
}

export function addAdapters(program: Command, signal: AbortSignal): void {
  const adapters = program.command("adapters").description("LoRA adapters: list, load, unload");
  addList(adapters, signal);
  addLoad(adapters, signal);
  addUnload(adapters, signal);
}

function addList(adapters: Command, signal: AbortSignal): void {
  const command = adapters
    .command("list")
    .description("list the adapters that are loaded")
    .option("--json", "one JSON object a line");
  addConnectionOptions(command).action(async (options: OutputOptions) => {
    const model = await withConnection(options, signal, ({ client, call }) =>
      client.model.get(call),
    );
    for (const adapter of model.adapterDetails) printAdapter(adapter, options);
  });
}

function addLoad(adapters: Command, signal: AbortSignal): void {
  const command = adapters
    .command("load")
    .description("load an adapter from the folder that the server's --adapter-dir names")
    .argument("<id>", "id, and name of the adapter's folder there")
    .option("--json", "print the adapter as JSON");
  addConnectionOptions(command).action(async (adapterId: string, options: OutputOptions) => {
    const adapter = await withConnection(options, signal, ({ client, call }) =>
      client.model.loadAdapter(adapterId, call),
    );
    printAdapter(adapter, options);
  });
}

function addUnload(adapters: Command, signal: AbortSignal): void {
  const command = adapters
    .command("unload")
    .description("forget an adapter; requests that run keep it to their end")
    .argument("<id>", "its id");
  addConnectionOptions(command).action(async (adapterId: string, options: ConnectionOptions) => {
    await withConnection(options, signal, ({ client, call }) =>
      client.model.unloadAdapter(adapterId, call),
    );
    process.stdout.write(`unloaded ${adapterId}\n`);
  });
}

function printAdapter(adapter: Adapter, { json }: OutputOptions): void {
  const { adapterId, digest } = adapter;
  process.stdout.write(json ? `${JSON.stringify(adapter)}\n` : `${adapterId}  ${digest}\n`);
}
