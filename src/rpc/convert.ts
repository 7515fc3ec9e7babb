/** From what generation/ and vectors/ yield to messages of the contract. */

import type { Duration } from "../generated/google/protobuf/Duration.js";
import type { AppliedSteering as AppliedSteeringMessage } from "../generated/llamasteer/v1/AppliedSteering.js";
import type { CaptureActivationsResponse } from "../generated/llamasteer/v1/CaptureActivationsResponse.js";
import type { DType } from "../generated/llamasteer/v1/DType.js";
import type { FinishReason as FinishReasonMessage } from "../generated/llamasteer/v1/FinishReason.js";
import type { GenerateStreamResponse } from "../generated/llamasteer/v1/GenerateStreamResponse.js";
import type { Operation } from "../generated/llamasteer/v1/Operation.js";
import type { ScoreResponse } from "../generated/llamasteer/v1/ScoreResponse.js";
import type { Site } from "../generated/llamasteer/v1/Site.js";
import type { Timings } from "../generated/llamasteer/v1/Timings.js";
import type { TokenLogprobs } from "../generated/llamasteer/v1/TokenLogprobs.js";
import type { CaptureEvent } from "../generation/capture.js";
import type { FinishReason, GenerationEvent, Usage } from "../generation/generate.js";
import type { ScoreResult } from "../generation/score.js";
import type { AppliedSteering } from "../generation/steering.js";
import type {
  DTypeName,
  NativeCaptureSite,
  NativeScoredToken,
  NativeSteerKind,
  NativeTimings,
} from "../native/binding.js";

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

const SITES: Record<NativeCaptureSite, Site> = {
  resid_pre: "SITE_RESID_PRE",
  attn_out: "SITE_ATTN_OUT",
  mlp_out: "SITE_MLP_OUT",
  resid_post: "SITE_RESID_POST",
  final_norm: "SITE_FINAL_NORM",
};

const DTYPES: Record<DTypeName, DType> = {
  f32: "D_TYPE_FLOAT32",
  bf16: "D_TYPE_BFLOAT16",
  f16: "D_TYPE_FLOAT16",
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
  };
}

export function logprobsMessage(tokens: readonly NativeScoredToken[]): TokenLogprobs[] {
  return tokens.map(({ tokenId, logprob, top }) => ({ tokenId, logprob, top }));
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
          modelFingerprint,
          registryRevision: event.registryRevision.toString(),
        },
      };
    case "delta":
      return {
        delta: {
          completionIndex: event.completion,
          text: event.text,
          tokenIds: event.tokenIds,
          logprobs: logprobsMessage(event.logprobs),
        },
      };
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
    modelFingerprint,
    registryRevision: result.registryRevision.toString(),
  };
}

export function captureMessage(
  event: CaptureEvent,
  modelFingerprint: string,
): CaptureActivationsResponse {
  if (event.type === "finished") {
    return {
      finished: {
        usage: usageMessage(event.usage),
        applied: event.applied.map(appliedMessage),
        modelFingerprint,
        registryRevision: event.registryRevision.toString(),
      },
    };
  }
  const { inputIndex, event: chunk } = event;
  return {
    activations: {
      inputIndex,
      site: SITES[chunk.site],
      layer: chunk.layer,
      positions: Array.from(chunk.positions),
      tokenIds: Array.from(chunk.tokenIds),
      dtype: DTYPES[chunk.dtype],
      shape: [chunk.rows, chunk.cols],
      data: chunk.data,
    },
  };
}
