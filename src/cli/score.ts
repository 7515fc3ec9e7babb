/** `llama-steer score`: log-probabilities of continuations. */
import type { Command } from "commander";
import type { ScoreRequest, ScoreResponse } from "../client/client.js";
import { type AdapterOptions, adapterOf, adapterOption } from "./arguments/adapter.js";
import { type InputOptions, readInput } from "./arguments/input.js";
import { collect, integer } from "./arguments/options.js";
import { addSteerOption, type SteerOptions, steeringOf } from "./arguments/steering.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { UsageError } from "./exit.js";
import { proofLine } from "./terminal/proof.js";

type ScoreOptions = ConnectionOptions &
  InputOptions &
  SteerOptions &
  AdapterOptions & {
    continuation?: string[];
    promptLogprobs?: boolean;
    logprobs?: number;
    json?: boolean;
  };

export function addScore(program: Command, signal: AbortSignal): void {
  const command = program
    .command("score")
    .description("log-probabilities of continuations of a prompt")
    .option("-p, --prompt <TEXT>", "prompt, as it stands")
    .option("-c, --chat <TEXT>", "message of a user, through the chat template")
    .option("--system <TEXT>", "system message for --chat")
    .option("-f, --file <FILE>", "prompt from a file, - is standard input; .json: messages")
    .option("--continuation <TEXT>", "text to score after the prompt; may be repeated", collect)
    .option("--prompt-logprobs", "score the prompt's own tokens too");
  addSteerOption(command)
    .addOption(adapterOption())
    .addOption(integer("--logprobs <K>", "also the K most likely tokens at each place (--json)"))
    .option("--json", "print the whole response as JSON");
  addConnectionOptions(command).action(async (options: ScoreOptions) => {
    const continuations = options.continuation ?? [];
    if (continuations.length === 0 && !options.promptLogprobs) {
      throw new UsageError("say what to score: --continuation TEXT, or --prompt-logprobs");
    }
    const request: ScoreRequest = {
      ...readInput(options),
      continuations: continuations.map((text) => ({ text })),
      steering: steeringOf(options),
      ...adapterOf(options),
      promptLogprobs: options.promptLogprobs ?? false,
      logprobs: options.logprobs ?? 0,
    };
    const response = await withConnection(options, signal, ({ client, call }) =>
      client.score(request, call),
    );
    if (options.json) process.stdout.write(`${JSON.stringify(response)}\n`);
    else printScores(response, continuations);
  });
}

function printScores(response: ScoreResponse, continuations: readonly string[]): void {
  for (const [index, score] of response.scores.entries()) {
    const { tokenIds, sumLogprob, perplexity } = score;
    process.stdout.write(
      `${sumLogprob.toFixed(4)}  perplexity ${perplexity.toFixed(4)}  ` +
        `${tokenIds.length} tokens  ${JSON.stringify(continuations[index])}\n`,
    );
  }
  if (response.promptLogprobs.length > 0) {
    const sum = response.promptLogprobs.reduce((total, { logprob }) => total + logprob, 0);
    const perplexity = Math.exp(-sum / response.promptLogprobs.length);
    process.stdout.write(
      `${sum.toFixed(4)}  perplexity ${perplexity.toFixed(4)}  ` +
        `${response.promptLogprobs.length} tokens  the prompt\n`,
    );
  }
  for (const steering of response.applied) process.stderr.write(`${proofLine(steering)}\n`);
}
