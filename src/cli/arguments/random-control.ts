/** Options of the control that every probe is compared with: random directions. */
import { type Command, Option } from "commander";
import { parseSeed } from "./numbers.js";
import { argument, integer } from "./options.js";

export interface RandomControlOptions {
  randomDirections?: number;
  randomSeed?: string;
}

export function addRandomControl(command: Command): Command {
  return command
    .addOption(integer("--random-directions <N>", "of the control (server default 100; 0 = none)"))
    .addOption(
      new Option("--random-seed <N>", "seed of the random directions (server default 0)").argParser(
        argument(parseSeed),
      ),
    );
}

export const randomControlOf = ({ randomDirections, randomSeed }: RandomControlOptions) => ({
  ...(randomDirections !== undefined && { randomDirections }),
  ...(randomSeed !== undefined && { randomSeed }),
});
