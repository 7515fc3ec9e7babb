/** Watches a generation pass by and tells the metrics. */
import type { GenerationEvent, GenerationFinished } from "../generation/generate.js";
import type { Metrics } from "../observability/metrics.js";

export async function* observeGeneration(
  events: AsyncIterable<GenerationEvent>,
  metrics: Metrics,
): AsyncGenerator<GenerationEvent, void, undefined> {
  /** When each completion's last tokens came, nanoseconds. */
  const lastSeen = new Map<number, bigint>();
  for await (const event of events) {
    if (event.type === "delta") {
      for (const { probeId, scores } of event.probeScores) metrics.probeScored(probeId, scores);
      const now = process.hrtime.bigint();
      const before = lastSeen.get(event.completion);
      lastSeen.set(event.completion, now);
      if (before !== undefined && event.tokenIds.length > 0) {
        metrics.tokensFollowed(event.tokenIds.length, Number(now - before) / 1e9);
      }
    }
    if (event.type === "finished") metrics.generationEnded(figuresOf(event));
    yield event;
  }
}

function figuresOf({ timings, finishReasons, applied }: GenerationFinished) {
  return {
    queueSeconds: timings.queueNs / 1e9,
    prefillSeconds: timings.prefillNs / 1e9,
    decodeSeconds: timings.decodeNs / 1e9,
    timeToFirstTokenSeconds: timings.timeToFirstTokenNs / 1e9,
    finishReasons,
    applied: applied.map(({ vectorId, promptTokens, generatedTokens, meanDeltaRatio }) => ({
      vectorId,
      tokens: promptTokens + generatedTokens,
      meanDeltaRatio,
    })),
  };
}
