/** What a trace tells of a request: numbers and names of the operator, never text and no vector. */
import type { NativeTimings } from "../native/binding.js";
import type { TracedCall } from "../observability/tracing.js";
import type { GenerationContext } from "./context.js";
import type { GenerateSpec, GenerationFinished } from "./generate.js";

/**
 * The phases in the engine, as it measured them itself; the last one is the one that failed. Without
 * timings, when nobody waited for the end, one phase `engine` until now.
 */
export function traceEngine(
  trace: TracedCall | null,
  submittedMs: number,
  timings: NativeTimings | null,
  failed: boolean,
): void {
  if (!trace) return;
  if (!timings) {
    trace.phase("engine", submittedMs, performance.now(), failed);
    return;
  }
  const phases = [
    ["queue", timings.queueNs],
    ["prefill", timings.prefillNs],
    ["decode", timings.decodeNs],
  ] as const;
  const reached = phases.filter(([name, ns]) => name === "queue" || ns > 0);
  let atMs = submittedMs;
  for (const [index, [name, ns]] of reached.entries()) {
    const endMs = atMs + ns / 1e6;
    trace.phase(name, atMs, endMs, failed && index === reached.length - 1);
    atMs = endMs;
  }
}

export function traceRequest(
  trace: TracedCall | null,
  context: GenerationContext,
  spec: GenerateSpec,
  { seed, maxNewTokens }: { seed: bigint; maxNewTokens: number },
): void {
  const { sampling } = spec;
  trace?.set({
    "gen_ai.operation.name": spec.input.kind === "chat" ? "chat" : "text_completion",
    "gen_ai.provider.name": "llama-steer",
    "gen_ai.request.model": context.model.name,
    "gen_ai.request.choice.count": sampling.completions,
    "gen_ai.request.max_tokens": maxNewTokens,
    "gen_ai.request.temperature": sampling.temperature,
    "gen_ai.request.top_p": sampling.topP,
    "gen_ai.request.top_k": sampling.topK,
    "gen_ai.request.presence_penalty": sampling.presencePenalty,
    "gen_ai.request.frequency_penalty": sampling.frequencyPenalty,
    // A seed has 64 bits; numbers of a trace are read by programs that have 53.
    "llamasteer.request.seed": seed.toString(),
    "llamasteer.request.steerings": spec.steering.length,
    "llamasteer.request.probes": spec.probes.length,
  });
}

export function traceFinished(trace: TracedCall | null, finished: GenerationFinished): void {
  const { usage, timings } = finished;
  trace?.set({
    "gen_ai.response.finish_reasons": finished.finishReasons,
    "gen_ai.usage.input_tokens": usage.promptTokens,
    "gen_ai.usage.output_tokens": usage.completionTokens,
    "gen_ai.usage.cache_read.input_tokens": usage.cachedPromptTokens,
    // Seconds.
    "gen_ai.response.time_to_first_chunk": timings.timeToFirstTokenNs / 1e9,
  });
}
