/** --steer options as the steerings of a request. */
import type { Command } from "commander";
import type { Steering } from "../../client/client.js";
import { readVectorFile } from "../files/vector-file.js";
import { argument } from "./options.js";
import { parseSteer, STEER_HELP, type SteerArgument } from "./steer-syntax.js";

export interface SteerOptions {
  steer?: SteerArgument[];
}

export function addSteerOption(command: Command): Command {
  return command.option(
    "-s, --steer <STEERING>",
    STEER_HELP,
    (text, before: SteerArgument[] | undefined) => [...(before ?? []), argument(parseSteer)(text)],
  );
}

/** Reads the rows of those that name a file. */
export function steeringOf(options: SteerOptions): Steering[] {
  return (options.steer ?? []).map(({ steering, file }) => {
    if (file === undefined) return steering;
    const layers = steering.layers?.length ? steering.layers : undefined;
    return { ...steering, inline: { rows: [...readVectorFile(file, layers)] } };
  });
}
