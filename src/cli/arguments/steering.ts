/**
 * --steer options as the steerings of a request. `--gate` and `--after-text` belong to the --steer
 * that stands before them on the command line.
 */
import type { Command } from "commander";
import type { Steering } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { readVectorFile } from "../files/vector-file.js";
import { GATE_HELP, parseGate } from "./gate-syntax.js";
import { argument, DEFAULT_GROUP } from "./options.js";
import { parseSteer, STEER_HELP, type SteerArgument } from "./steer-syntax.js";

export interface SteerOptions {
  steer?: SteerArgument[];
}

export function addSteerOption(command: Command): Command {
  const last = (): SteerArgument["steering"] => {
    const steer: SteerArgument[] | undefined = command.getOptionValue("steer");
    const steering = steer?.at(-1)?.steering;
    if (!steering) throw new UsageError("belongs behind the --steer that it is for");
    return steering;
  };
  return command
    .optionsGroup("Steering:")
    .option("-s, --steer <STEERING>", STEER_HELP, (text, before: SteerArgument[] | undefined) => [
      ...(before ?? []),
      argument(parseSteer)(text),
    ])
    .option(
      "--gate <GATE>",
      GATE_HELP,
      argument((text) => setGate(last(), text)),
    )
    .option(
      "--after-text <TEXT>",
      "the --steer before it acts only on tokens after this text, in prompt or answer",
      argument((text) => setAfterText(last(), text)),
    )
    .optionsGroup(DEFAULT_GROUP);
}

function setGate(steering: Steering, text: string): string {
  if (steering.gate) throw new UsageError("the --steer before it has a gate already");
  steering.gate = parseGate(text);
  return text;
}

function setAfterText(steering: Steering, text: string): string {
  if (text === "") throw new UsageError("the text is empty");
  if (steering.positions?.afterText) {
    throw new UsageError("the --steer before it has an --after-text already");
  }
  steering.positions = { ...(steering.positions ?? { all: {} }), afterText: text };
  return text;
}

/** Reads the rows of those that name a file. */
export function steeringOf(options: SteerOptions): Steering[] {
  return (options.steer ?? []).map(({ steering, file }) => {
    if (file === undefined) return steering;
    const layers = steering.layers?.length ? steering.layers : undefined;
    return { ...steering, inline: { rows: [...readVectorFile(file, layers)] } };
  });
}
