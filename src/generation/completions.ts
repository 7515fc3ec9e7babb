/** Completions as they grow: engine events become text, scores, and reasons to stop. */
import { EngineFault } from "../errors.js";
import type {
  NativeDoneEvent,
  NativeProbeEvent,
  NativeScoredToken,
  NativeTokenEvent,
} from "../native/binding.js";
import type { EngineStream, RequestEvent } from "../native/engine.js";
import { CompletionText } from "./completion-text.js";
import { errorOfStatus, type GenerationContext } from "./context.js";
import { type AppliedProbe, appendScores, type PinnedProbes, type ProbeScores } from "./probes.js";
import type { SamplingSpec } from "./sampling.js";

export type FinishReason = "stop" | "stop_text" | "length" | "cancelled";

/** More of one completion. */
export interface CompletionDelta {
  completion: number;
  text: string;
  tokenIds: number[];
  /** As many as tokenIds, or none. */
  logprobs: NativeScoredToken[];
  /** As many as tokenIds, or none. */
  klToUnsteered: number[];
  /** Of probes that have new scores. */
  probeScores: ProbeScores[];
}

export function emptyDelta(completion: number): CompletionDelta {
  return {
    completion,
    text: "",
    tokenIds: [],
    logprobs: [],
    klToUnsteered: [],
    probeScores: [],
  };
}

class Completion {
  finish: FinishReason | null = null;
  tokens = 0;
  private readonly text: CompletionText;

  constructor(context: GenerationContext, stop: string[]) {
    this.text = new CompletionText(context.model.tokenizer, stop);
  }

  /** The new text; sets `finish` when this token is the last. */
  push(event: NativeTokenEvent): string {
    this.tokens += 1;
    // The token that ends a completion is not part of its text.
    const pushed =
      event.finish === "stop" ? { text: "", stopped: false } : this.text.push(event.token.tokenId);
    if (pushed.stopped) {
      this.finish = "stop_text";
      return pushed.text;
    }
    if (event.finish === "none") return pushed.text;
    const last = this.text.finish();
    this.finish = last.stopped ? "stop_text" : event.finish;
    return pushed.text + last.text;
  }
}

export interface CompletionsOptions {
  sampling: SamplingSpec;
  probes: PinnedProbes;
  compareUnsteered: boolean;
  promptTokens: number;
}

export class Completions {
  private readonly completions: Completion[];

  constructor(
    context: GenerationContext,
    private readonly options: CompletionsOptions,
  ) {
    const { completions, stop } = options.sampling;
    this.completions = Array.from({ length: completions }, () => new Completion(context, stop));
  }

  /** Tokens that clients see, over all completions. */
  get tokens(): number {
    return this.completions.reduce((sum, { tokens }) => sum + tokens, 0);
  }

  /** Deltas by completion. Cancels completions whose stop text came. */
  take(events: readonly RequestEvent[], stream: EngineStream): CompletionDelta[] {
    const deltas = new Map<number, CompletionDelta>();
    for (const event of events) {
      if (event.type === "token") this.addToken(event, deltas, stream);
      if (event.type === "probe_scores") this.addScores(event, deltas);
    }
    return [...deltas.values()];
  }

  private addToken(
    event: NativeTokenEvent,
    deltas: Map<number, CompletionDelta>,
    stream: EngineStream,
  ): void {
    const index = event.completion;
    const completion = this.completions[index];
    // Tokens behind a stop text were on their way when it was found.
    if (!completion || completion.finish !== null) return;
    const delta = deltaOf(deltas, index);
    delta.text += completion.push(event);
    delta.tokenIds.push(event.token.tokenId);
    if (event.hasLogprob) delta.logprobs.push(event.token);
    if (this.options.compareUnsteered) delta.klToUnsteered.push(checkedKl(event));
    if (completion.finish === "stop_text" && event.finish === "none") stream.cancel(index);
  }

  private addScores(event: NativeProbeEvent, deltas: Map<number, CompletionDelta>): void {
    const { probes, promptTokens } = this.options;
    for (const [index, completion] of this.completions.entries()) {
      // Scores of the prompt are shared by all completions.
      if (event.completion >= 0 && event.completion !== index) continue;
      // A row belongs to the token that is drawn from it. Rows of tokens behind a stop text are not
      // told, whichever of a row and its token comes first.
      const next = completion.finish === null ? 1 : 0;
      const scores = probes.scoresBelow(event, promptTokens - 1 + completion.tokens + next);
      if (scores.scores.length > 0) appendScores(deltaOf(deltas, index).probeScores, scores);
    }
  }

  /** Throws a ServiceError when the request failed. */
  finish(done: NativeDoneEvent, field: string): FinishReason[] {
    const ended = this.completions.every(({ finish }) => finish !== null);
    if (done.status.code !== 0 && !(done.status.code === 1 && ended)) {
      throw errorOfStatus(done.status, field);
    }
    if (!ended) throw new EngineFault("a completion ended without a reason");
    return this.completions.map(({ finish }) => finish ?? "cancelled");
  }
}

function deltaOf(deltas: Map<number, CompletionDelta>, index: number): CompletionDelta {
  const delta = deltas.get(index) ?? emptyDelta(index);
  deltas.set(index, delta);
  return delta;
}

/** A comparison that is missing must not look like a distance of 0. */
function checkedKl({ klToUnsteered }: NativeTokenEvent): number {
  if (klToUnsteered !== null && Number.isFinite(klToUnsteered)) return klToUnsteered;
  throw new EngineFault("a token came without its distance to the unsteered model");
}

/** All deltas of one completion together. */
export class WholeCompletion {
  private readonly text: string[] = [];
  private readonly whole = emptyDelta(0);

  /** With an entry for each probe, scored or not. */
  constructor(probes: readonly AppliedProbe[]) {
    for (const [probe, { probeId }] of probes.entries()) {
      this.whole.probeScores.push({ probe, probeId, positions: [], scores: [] });
    }
  }

  add(delta: CompletionDelta): void {
    this.text.push(delta.text);
    this.whole.tokenIds.push(...delta.tokenIds);
    this.whole.logprobs.push(...delta.logprobs);
    this.whole.klToUnsteered.push(...delta.klToUnsteered);
    for (const scores of delta.probeScores) appendScores(this.whole.probeScores, scores);
  }

  get delta(): CompletionDelta {
    return { ...this.whole, text: this.text.join("") };
  }
}
