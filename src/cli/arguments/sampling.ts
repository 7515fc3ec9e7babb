/** Flags of `Sampling`. Ranges are the server's to check: it knows its limits. */
import { type Command, Option } from "commander";
import type { Sampling } from "../../client/client.js";
import { parseSeed } from "./numbers.js";
import { argument, collect, DEFAULT_GROUP, integer, number } from "./options.js";

export interface SamplingOptions {
  maxNewTokens?: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed?: string;
  n?: number;
  stop?: string[];
  ignoreEos?: boolean;
  logprobs?: number;
}

export function addSamplingOptions(command: Command): Command {
  return command
    .optionsGroup("Sampling:")
    .addOption(integer("-m, --max-new-tokens <N>", "tokens at most (server default 256)", 1))
    .addOption(number("-t, --temperature <X>", "0 = greedy (server default 1)"))
    .addOption(number("--top-p <X>", "nucleus, (0, 1]"))
    .addOption(integer("--top-k <N>", "the N most likely tokens; 0 = off"))
    .addOption(number("--min-p <X>", "relative to the most likely token, [0, 1]"))
    .addOption(number("--repetition-penalty <X>", "1 = off"))
    .addOption(number("--presence-penalty <X>", "0 = off"))
    .addOption(number("--frequency-penalty <X>", "0 = off"))
    .addOption(
      new Option("--seed <N>", "same seed, same answer (default: drawn)").argParser(
        argument(parseSeed),
      ),
    )
    .addOption(integer("-n, --n <N>", "completions", 1))
    .option("--stop <TEXT>", "ends a completion; may be repeated", collect)
    .option("--ignore-eos", "go on past end-of-sequence tokens")
    .addOption(integer("--logprobs <K>", "log-probabilities with the K most likely (--json)"))
    .optionsGroup(DEFAULT_GROUP);
}

/** Only what was given: the server's defaults hold for the rest. */
export function samplingOf(options: SamplingOptions): Sampling {
  const { maxNewTokens, temperature, topP, topK, minP, seed, n, stop, ignoreEos } = options;
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logprobs } = options;
  return {
    ...(maxNewTokens !== undefined && { maxNewTokens }),
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { topP }),
    ...(topK !== undefined && { topK }),
    ...(minP !== undefined && { minP }),
    ...(repetitionPenalty !== undefined && { repetitionPenalty }),
    ...(presencePenalty !== undefined && { presencePenalty }),
    ...(frequencyPenalty !== undefined && { frequencyPenalty }),
    ...(seed !== undefined && { seed }),
    ...(n !== undefined && { n }),
    ...(stop !== undefined && { stop }),
    ...(ignoreEos && { ignoreEos }),
    ...(logprobs !== undefined && { logprobs }),
  };
}
