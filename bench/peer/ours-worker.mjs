/**
 * llama-steer under measurement, through the addon as the service uses it.
 *   argv: CHECKPOINT WEIGHT-FORMAT THREADS
 */
import { BenchEngine } from "../lib/engine.mjs";
import { serveOrders } from "../lib/worker.mjs";

const [folder, weightFormat, threads] = process.argv.slice(2);
const bench = await BenchEngine.open({ folder, weightFormat, threads: Number(threads) });
bench.putBenchVectors();

serveOrders({
  describe: async () => bench.ready,
  prefill: ({ prompt }) => bench.prefill(prompt),
  decode: ({ prompts, tokens, steering }) => bench.decode(prompts, tokens, steering),
  agree: (args) => bench.agree(args),
});

process.send({ result: "ready" });
