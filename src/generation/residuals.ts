/** The residual stream of prompts, for deriving vectors and for probes: one row a text and block. */
import { CancelledError, invalid } from "../errors.js";
import { findText } from "../model/token-bytes.js";
import { streamPhase } from "../observability/tracing.js";
import { READS_IN_FLIGHT, type ReadTarget } from "../vectors/derive/pairs.js";
import { floatsOf } from "../vectors/vector.js";
import {
  type Call,
  cancelOnAbort,
  checkFits,
  deadlineNs,
  errorOfStatus,
  type GenerationContext,
  type InputSpec,
  NO_SAMPLING,
  tokenizeInput,
} from "./context.js";

/** A text, and what follows it. */
export interface ReadInput {
  input: InputSpec;
  /** Null: nothing. */
  completion: string | null;
  /** Path in the request. */
  field: string;
}

/** Which tokens are read; see TokenRule of the contract. */
export interface ReadRule {
  kind: "last" | "all_mean" | "at_text" | "completion_mean";
  /** Of "at_text"; else empty. */
  text: string;
}

/**
 * Token ids up to the last one that is read: what follows it changes nothing. One after the other, so
 * that it is always the first bad text that is named.
 */
export async function resolveReads(
  context: GenerationContext,
  inputs: readonly ReadInput[],
  rule: ReadRule,
  signal: AbortSignal,
): Promise<ReadTarget[]> {
  const targets: ReadTarget[] = [];
  for (const input of inputs) {
    signal.throwIfAborted();
    targets.push(await resolveRead(context, input, rule));
  }
  return targets;
}

async function resolveRead(
  context: GenerationContext,
  { input, completion, field }: ReadInput,
  rule: ReadRule,
): Promise<ReadTarget> {
  const prompt = await tokenizeInput(context, input);
  const path = `${field}.completion`;
  const added =
    completion === null ? [] : await context.model.tokenizer.encode(completion, false, path);
  if (completion !== null && added.length === 0) throw invalid(path, "has no tokens");
  const tokens = Uint32Array.from([...prompt, ...added]);
  checkFits(context, field, tokens.length, 0);
  switch (rule.kind) {
    case "last":
      return { tokens, begin: tokens.length - 1, end: tokens.length };
    case "all_mean":
      return { tokens, begin: 0, end: tokens.length };
    case "completion_mean":
      if (added.length === 0) throw invalid(path, "is missing: TOKEN_RULE_COMPLETION_MEAN");
      return { tokens, begin: prompt.length, end: tokens.length };
    case "at_text": {
      const at = findText(context.model.tokenBytes, tokens, Buffer.from(rule.text));
      if (at < 0) throw invalid(field, `does not contain the text ${JSON.stringify(rule.text)}`);
      return { tokens: tokens.subarray(0, at + 1), begin: at, end: at + 1 };
    }
  }
}

/** What is read of each target. */
export interface ReadWhat {
  /** Handle; 0: the base model. */
  adapter: number;
  /** Blocks, ascending. */
  layers: readonly number[];
  /** A probe that scores the last token of each target, as it does while generating; null: none. */
  probe: { handle: number; layer: number } | null;
}

export interface Read {
  /** [layers, hidden size] */
  rows: Float32Array;
  /** Null without a probe. */
  score: number | null;
}

/** In the order of the targets; several are computed at a time. */
export function readTargets(
  context: GenerationContext,
  call: Call,
  targets: readonly ReadTarget[],
  what: ReadWhat,
): AsyncGenerator<Read, void, undefined> {
  const reads = inOrder(targets, call.signal, (target, signal) =>
    readOne(context, { ...call, signal }, target, what),
  );
  return streamPhase(call.trace, "engine", reads);
}

/** Prompt tokens that wait in the engine at a time, at most. */
export function tokensInFlight(targets: readonly ReadTarget[]): number {
  const lengths = targets.map(({ tokens }) => tokens.length).sort((a, b) => b - a);
  return lengths.slice(0, READS_IN_FLIGHT).reduce((sum, length) => sum + length, 0);
}

async function readOne(
  context: GenerationContext,
  call: Call,
  target: ReadTarget,
  { adapter, layers, probe }: ReadWhat,
): Promise<Read> {
  const { hiddenSize } = context.model.config;
  const stream = context.engine.submit({
    promptTokenIds: target.tokens,
    completions: 1,
    maxNewTokens: 0,
    sampling: NO_SAMPLING,
    steering: [],
    capture: {
      sites: ["resid_post"],
      layers: Int32Array.from(layers),
      positionBegin: target.begin,
      positionEnd: target.end,
      mean: target.end - target.begin > 1,
      beforeSteering: false,
      dtype: "f32",
      lensTopK: 0,
      afterText: new Uint8Array(),
    },
    promptLogprobsFrom: null,
    // One event a block: a read never waits for itself.
    credits: layers.length,
    captureCreditBytes: layers.length * hiddenSize * Float32Array.BYTES_PER_ELEMENT,
    proofPromptTokens: 0,
    cacheSalt: "",
    deadlineNs: deadlineNs(call),
    adapter,
    probes:
      probe === null
        ? []
        : [
            {
              vector: probe.handle,
              layer: probe.layer,
              read: "prompt_last",
              afterText: new Uint8Array(),
            },
          ],
    compareUnsteered: false,
  });
  const rows = new Float32Array(layers.length * hiddenSize);
  let score: number | null = null;
  const batches = cancelOnAbort(stream, call.signal, async function* () {
    yield* stream;
  });
  for await (const batch of batches) {
    for (const event of batch) {
      if (event.type === "done" && event.status.code !== 0) {
        throw errorOfStatus(event.status, "request");
      }
      if (event.type === "probe_scores") score = event.scores[0] ?? null;
      if (event.type !== "activations") continue;
      rows.set(floatsOf(event.data), layers.indexOf(event.layer) * hiddenSize);
    }
  }
  return { rows, score };
}

/** Results in the order of the items; a few run ahead. Leaving early cancels what runs. */
async function* inOrder<Item, Result>(
  items: readonly Item[],
  signal: AbortSignal,
  run: (item: Item, signal: AbortSignal) => Promise<Result>,
): AsyncGenerator<Result, void, undefined> {
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const running: Promise<Result>[] = [];
  const waiting = items.values();
  const startNext = () => {
    const { value, done } = waiting.next();
    if (done) return;
    const result = run(value, either);
    result.catch(() => {});
    running.push(result);
  };
  try {
    for (let i = 0; i < READS_IN_FLIGHT; i += 1) startNext();
    for (let next = running.shift(); next; next = running.shift()) {
      yield await next;
      startNext();
    }
  } finally {
    over.abort(new CancelledError());
    await Promise.allSettled(running);
  }
}
