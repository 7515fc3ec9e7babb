/** --adapter: the LoRA adapter of a request. */
import { Option } from "commander";

export interface AdapterOptions {
  adapter?: string;
}

export const adapterOption = () =>
  new Option("--adapter <ID>", "LoRA adapter (see `llama-steer model`; default: the base model)");

export const adapterOf = ({ adapter }: AdapterOptions) =>
  adapter === undefined ? {} : { adapterId: adapter };
