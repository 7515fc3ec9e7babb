/** From what generation/ and vectors/ yield to messages of the contract. */

import type { Duration } from "../generated/google/protobuf/Duration.js";
import type { AppliedProbe as AppliedProbeMessage } from "../generated/llamasteer/v1/AppliedProbe.js";
import type { AppliedSteering as AppliedSteeringMessage } from "../generated/llamasteer/v1/AppliedSteering.js";
import type { Completion } from "../generated/llamasteer/v1/Completion.js";
import type { FinishReason as FinishReasonMessage } from "../generated/llamasteer/v1/FinishReason.js";
import type { GenerateStreamResponse } from "../generated/llamasteer/v1/GenerateStreamResponse.js";
import type { Operation } from "../generated/llamasteer/v1/Operation.js";
import type { ProbeScores as ProbeScoresMessage } from "../generated/llamasteer/v1/ProbeScores.js";
import type { _llamasteer_v1_ProbeUse_Read as Read } from "../generated/llamasteer/v1/ProbeUse.js";
import type { ScoreResponse } from "../generated/llamasteer/v1/ScoreResponse.js";
import type { Timings } from "../generated/llamasteer/v1/Timings.js";
import type { TokenLogprobs } from "../generated/llamasteer/v1/TokenLogprobs.js";
import type { CompletionDelta, FinishReason } from "../generation/completions.js";
import type { GenerationEvent, Usage } from "../generation/generate.js";
import type { AppliedProbe, ProbeRead, ProbeScores } from "../generation/probes.js";
import type { AppliedSteering } from "../generation/proof.js";
import type { ScoreResult } from "../generation/score.js";
import type { NativeScoredToken, NativeSteerKind, NativeTimings } from "../native/binding.js";
import { activationsMessage } from "./convert-activations.js";

const FINISH_REASONS: Record<FinishReason, FinishReasonMessage> = {
  stop: "FINISH_REASON_STOP",
  stop_text: "FINISH_REASON_STOP_TEXT",
  length: "FINISH_REASON_LENGTH",
  cancelled: "FINISH_REASON_CANCELLED",
};

const OPERATIONS: Record<NativeSteerKind, Operation> = {
  add: "OPERATION_ADD",
  project_out: "OPERATION_PROJECT_OUT",
  clamp: "OPERATION_CLAMP",
  scale_component: "OPERATION_SCALE_COMPONENT",
};

const READS: Record<ProbeRead, Read> = {
  each_token: "READ_EACH_TOKEN",
  prompt_last: "READ_PROMPT_LAST",
  after_text: "READ_AFTER_TEXT",
};

export function finishReason(reason: FinishReason): FinishReasonMessage {
  return FINISH_REASONS[reason];
}

export function usageMessage(usage: Usage) {
  return {
    promptTokens: usage.promptTokens,
    cachedPromptTokens: usage.cachedPromptTokens,
    completionTokens: usage.completionTokens,
  };
}

function duration(nanoseconds: number): Duration {
  const seconds = Math.floor(nanoseconds / 1e9);
  return { seconds, nanos: Math.round(nanoseconds - seconds * 1e9) };
}

export function timingsMessage(timings: NativeTimings): Timings {
  return {
    queue: duration(timings.queueNs),
    prefill: duration(timings.prefillNs),
    decode: duration(timings.decodeNs),
    timeToFirstToken: duration(timings.timeToFirstTokenNs),
  };
}

export function appliedMessage(applied: AppliedSteering): AppliedSteeringMessage {
  const { positionEnd } = applied;
  return {
    vectorId: applied.vectorId,
    digest: applied.digest,
    layers: applied.layers,
    operation: OPERATIONS[applied.operation],
    coefficient: applied.coefficient,
    preserveNorm: applied.preserveNorm,
    positionStart: applied.positionStart,
    ...(positionEnd === null ? {} : { positionEnd }),
    promptTokens: applied.promptTokens,
    generatedTokens: applied.generatedTokens,
    steeredRows: applied.steeredRows,
    meanDeltaRatio: applied.meanDeltaRatio,
    gateDigest: applied.gateDigest,
    gateEvaluations: applied.gateEvaluations,
    gateFired: applied.gateFired,
    afterTextPositions: applied.afterTextPositions,
  };
}

export function logprobsMessage(tokens: readonly NativeScoredToken[]): TokenLogprobs[] {
  return tokens.map(({ tokenId, logprob, top }) => ({ tokenId, logprob, top }));
}

export function appliedProbeMessage(applied: AppliedProbe): AppliedProbeMessage {
  const { probeId, digest, layer, read, threshold } = applied;
  return {
    probeId,
    digest,
    layer,
    read: READS[read],
    ...(threshold === null ? {} : { threshold }),
  };
}

function probeScoresMessage(scores: ProbeScores): ProbeScoresMessage {
  return {
    probeId: scores.probeId,
    probeIndex: scores.probe,
    positions: scores.positions,
    scores: scores.scores,
  };
}

/** What a delta and a whole completion have in common. */
function completionFields(delta: CompletionDelta) {
  return {
    text: delta.text,
    tokenIds: delta.tokenIds,
    logprobs: logprobsMessage(delta.logprobs),
    klToUnsteered: delta.klToUnsteered,
    probeScores: delta.probeScores.map(probeScoresMessage),
  };
}

export function completionMessage(delta: CompletionDelta, reason: FinishReason): Completion {
  return { ...completionFields(delta), finishReason: finishReason(reason) };
}

export function generationMessage(
  event: GenerationEvent,
  modelFingerprint: string,
): GenerateStreamResponse {
  switch (event.type) {
    case "started":
      return {
        started: {
          seed: event.seed.toString(),
          promptTokens: event.promptTokens,
          applied: event.applied.map(appliedMessage),
          probes: event.probes.map(appliedProbeMessage),
          adapterDigest: event.adapterDigest,
          modelFingerprint,
          registryRevision: event.registryRevision.toString(),
        },
      };
    case "delta":
      return {
        delta: { completionIndex: event.completion, ...completionFields(event) },
      };
    case "activations":
      return { activations: activationsMessage(0, event.event) };
    case "finished":
      return {
        finished: {
          finishReasons: event.finishReasons.map(finishReason),
          usage: usageMessage(event.usage),
          timings: timingsMessage(event.timings),
          applied: event.applied.map(appliedMessage),
        },
      };
  }
}

export function scoreMessage(result: ScoreResult, modelFingerprint: string): ScoreResponse {
  return {
    scores: result.scores.map(({ tokens, sumLogprob, perplexity }) => ({
      tokenIds: tokens.map(({ tokenId }) => tokenId),
      logprobs: logprobsMessage(tokens),
      sumLogprob,
      perplexity,
    })),
    promptLogprobs: logprobsMessage(result.promptLogprobs),
    usage: usageMessage(result.usage),
    applied: result.applied.map(appliedMessage),
    adapterDigest: result.adapterDigest,
    modelFingerprint,
    registryRevision: result.registryRevision.toString(),
  };
}
