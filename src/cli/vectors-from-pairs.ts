/** `llama-steer vectors from-pairs`: a vector from contrastive pairs. */
import { type Command, Option } from "commander";
import { parseLabels } from "./arguments/labels.js";
import { collect, layersOption } from "./arguments/options.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { meanDifference, normalized, readPairs } from "./pairs.js";
import { progressBar } from "./terminal/progress.js";
import { printVector } from "./terminal/vector.js";

interface FromPairsOptions extends ConnectionOptions {
  pairs: string;
  layers?: number[];
  token: "last" | "mean";
  normalize?: boolean;
  label?: string[];
  json?: boolean;
}

export function addFromPairs(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("from-pairs")
    .description("register the mean difference of the residual stream over contrastive pairs")
    .argument("<id>", "a-z, 0-9, '.', '_', '-'; at most 63 characters")
    .requiredOption(
      "--pairs <FILE>",
      'JSONL of {"positive": …, "negative": …}: texts or {"messages": […]}',
    )
    .addOption(layersOption("layers of the vector: 3-5,7 (default: all)"))
    .addOption(
      new Option("--token <RULE>", "which token is read").choices(["last", "mean"]).default("last"),
    )
    .option("--normalize", "scale each row to length 1")
    .option("--label <KEY=VALUE>", "free text; may be repeated", collect)
    .option("--json", "print the vector as JSON");
  addConnectionOptions(command).action(async (vectorId: string, options: FromPairsOptions) => {
    const pairs = readPairs(options.pairs);
    const labels = {
      method: "mean-difference",
      pairs: String(pairs.length),
      token: options.token,
      ...parseLabels(options.label ?? []),
    };
    const vector = await withConnection(options, signal, async ({ client, call }) => {
      const bar = progressBar("reading pairs", pairs.length, "pairs");
      const difference = await meanDifference(client, pairs, {
        layers: options.layers ?? [],
        token: options.token,
        call,
        onProgress: (done) => bar.update(done),
      }).finally(() => bar.stop());
      const rows = options.normalize ? normalized(difference) : difference;
      return client.vectors.create({ vectorId, rows, labels }, call);
    });
    printVector(vector, options);
  });
}
