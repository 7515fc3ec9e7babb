/** `llama-steer vectors derive`: a vector from contrastive pairs, computed by the server. */
import { type Command, Option } from "commander";
import {
  type CallOptions,
  ClientError,
  type DeriveVectorRequest,
  type LlamaSteerClient,
  type Vector,
} from "../client/client.js";
import { type AdapterOptions, adapterOf } from "./arguments/adapter.js";
import {
  addTokenOptions,
  PAIRS_HELP,
  readPairs,
  type TokenOptions,
  tokenRuleOf,
} from "./arguments/contrastive.js";
import { parseLabels } from "./arguments/labels.js";
import { collect, layersOption } from "./arguments/options.js";
import { addConnectionOptions, type ConnectionOptions, withConnection } from "./connection.js";
import { progressBar } from "./terminal/progress.js";
import { printVector } from "./terminal/vector.js";

const METHODS = {
  "mean-difference": "METHOD_MEAN_DIFFERENCE",
  "pca-pairwise": "METHOD_PCA_PAIRWISE",
  "pca-centered": "METHOD_PCA_CENTERED",
  logistic: "METHOD_LOGISTIC",
} as const;

interface DeriveOptions extends ConnectionOptions, TokenOptions, AdapterOptions {
  pairs: string;
  method?: keyof typeof METHODS;
  layers?: number[];
  normalize?: boolean;
  label?: string[];
  json?: boolean;
}

export function addDerive(vectors: Command, signal: AbortSignal): void {
  const command = vectors
    .command("derive")
    .description("derive a vector from contrastive pairs and register it")
    .argument("<id>", "a-z, 0-9, '.', '_', '-'; at most 63 characters")
    .requiredOption("--pairs <FILE>", PAIRS_HELP)
    .addOption(
      new Option("--method <METHOD>", "how (default: mean-difference)").choices(
        Object.keys(METHODS),
      ),
    )
    .addOption(layersOption("layers of the vector: 3-5,7 (default: all, in one pass)"));
  addTokenOptions(command)
    .option("--normalize", "scale each row to length 1 (mean-difference; the others are)")
    .option("--adapter <ID>", "read the pairs under this LoRA adapter")
    .option("--label <KEY=VALUE>", "free text; may be repeated", collect)
    .option("--json", "print the vector with its diagnostics as JSON");
  addConnectionOptions(command).action(async (vectorId: string, options: DeriveOptions) => {
    const { method, layers, normalize, label } = options;
    const request: DeriveVectorRequest = {
      vectorId,
      pairs: readPairs(options.pairs, options.asChat),
      ...(method && { method: METHODS[method] }),
      layers: layers ?? [],
      ...tokenRuleOf(options),
      normalize: normalize ?? false,
      ...adapterOf(options),
      labels: parseLabels(label ?? []),
    };
    const vector = await withConnection(options, signal, ({ client, call }) =>
      deriveVector(client, request, call),
    );
    printVector(vector, options);
  });
}

/** Derives with a progress bar. */
export async function deriveVector(
  client: LlamaSteerClient,
  request: DeriveVectorRequest,
  call: CallOptions,
): Promise<Vector> {
  const bar = progressBar("deriving", request.pairs?.length ?? 1, "texts");
  try {
    for await (const { progress, vector } of client.vectors.derive(request, call)) {
      if (vector) return vector;
      if (!progress) continue;
      const { inputsDone, inputs, layersDone, layers } = progress;
      bar.update(inputsDone, `${layersDone}/${layers} layers`, inputs);
    }
  } finally {
    bar.stop();
  }
  throw new ClientError("INTERNAL", "the server ended the derivation without a vector");
}
