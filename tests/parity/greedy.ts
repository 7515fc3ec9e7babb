/** Greedy answers recorded from transformers (record_greedy.py), and llama-steer's beside them. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect } from "vitest";
import { openAdapter } from "../../src/model/adapter.js";
import { openCheckpoint } from "../../src/model/checkpoint.js";
import { runRequest, startEngine } from "./native-run.js";

/** Leads below this, in logits, are ties: float32 implementations may order them either way. */
const TIE = 1e-3;

type Side = "base" | "adapter";

/** What answers: the base model, the adapter beside it, or the adapter merged into it at load. */
export const WAYS = ["base", "adapter", "merged"] as const;
export type Way = (typeof WAYS)[number];

interface Answer {
  ids: number[];
  /** Lead of each token over the second best, in logits. */
  margins: number[];
}

export interface GreedyGoldens {
  model: string;
  tokens: number;
  end_token_ids: number[];
  records: ({ id: string; prompt_ids: number[] } & Record<Side, Answer>)[];
}

export function readGreedyGoldens(name: string): GreedyGoldens {
  const file = path.join(import.meta.dirname, "goldens", `${name}.json`);
  return JSON.parse(readFileSync(file, "utf8"));
}

/** Answers every recorded prompt and compares token for token; ties are printed. */
export async function expectRecordedAnswers(
  checkpoint: string,
  adapterFolder: string,
  goldens: GreedyGoldens,
  way: Way,
  cpuIsa: string,
): Promise<void> {
  const opened = await openAdapter(adapterFolder, openCheckpoint(checkpoint).config);
  const adapter = { handle: 1, ...opened.native };
  const { engine } = await startEngine(checkpoint, {
    cpuIsa,
    kvCacheBytes: 256 << 20,
    maxRunningSequences: 16,
    mergedAdapter: way === "merged" ? adapter : null,
  });
  if (way === "adapter") engine.putAdapter(adapter);
  const answers = await Promise.all(
    goldens.records.map(({ prompt_ids: prompt }) =>
      runRequest(engine, {
        prompt: Uint32Array.from(prompt),
        maxNewTokens: goldens.tokens,
        stopTokenIds: Uint32Array.from(goldens.end_token_ids),
        adapter: way === "adapter" ? adapter.handle : 0,
      }),
    ),
  ).finally(() => engine.close());

  const side: Side = way === "base" ? "base" : "adapter";
  const ties: string[] = [];
  for (const [index, record] of goldens.records.entries()) {
    const { id } = record;
    const { ids: expected, margins } = record[side];
    const ids = answers[index]?.tokens.map(({ tokenId }) => tokenId) ?? [];
    const differs = expected.findIndex((token, at) => ids[at] !== token);
    const margin = margins[differs];
    if (margin !== undefined && margin < TIE) {
      ties.push(`${id}, token ${differs}: lead ${margin}`);
      expect(ids.slice(0, differs)).toEqual(expected.slice(0, differs));
    } else {
      expect(ids, id).toEqual(expected);
    }
  }
  if (ties.length > 0) console.info(`ties, ${way}:\n${ties.join("\n")}`);
  // More than a few would hide a real error.
  expect(ties.length).toBeLessThanOrEqual(goldens.records.length / 10);
}
