/** From messages of the contract to what generation/ works on. Throws before any work is done. */
import type { CaptureActivationsRequest__Output } from "../generated/llamasteer/v1/CaptureActivationsRequest.js";
import type { Continuation__Output } from "../generated/llamasteer/v1/Continuation.js";
import type { GenerateRequest__Output } from "../generated/llamasteer/v1/GenerateRequest.js";
import type { ScoreRequest__Output } from "../generated/llamasteer/v1/ScoreRequest.js";
import type { CaptureActivationsSpec } from "../generation/capture.js";
import type { GenerateSpec } from "../generation/generate.js";
import type { SamplingSpec } from "../generation/sampling.js";
import type { ContinuationSpec, ScoreSpec } from "../generation/score.js";
import { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { readCapture } from "./validate-capture.js";
import { readInput, readTokens } from "./validate-input.js";
import { readProbes } from "./validate-probes.js";
import { readSampling } from "./validate-sampling.js";
import { readSteerings } from "./validate-steering.js";

export function readGenerate(
  request: GenerateRequest__Output,
  limits: RequestLimits,
  streaming: boolean,
): GenerateSpec {
  const check = new Checker();
  const input = readInput(request, "", limits, check);
  const { capture } = request;
  if (capture && !streaming) check.add("capture", "is for GenerateStream only");
  const sampling = readSampling(request.sampling, limits, check);
  if (capture) requireOneCompletion(sampling, check);
  const spec: GenerateSpec = {
    input,
    steering: readSteerings(request.steering, limits, check),
    sampling,
    adapterId: request.adapterId ?? "",
    probes: readProbes(request.probes, limits, check),
    capture: capture ? readCapture(capture, limits, check) : null,
    compareUnsteered: request.compareUnsteered,
    minRegistryRevision: readRevision(request.minRegistryRevision),
  };
  check.throwIfAny();
  return spec;
}

/** Rows of several completions would stand at the same positions. */
function requireOneCompletion(sampling: SamplingSpec, check: Checker): void {
  if (sampling.completions > 1) check.add("sampling.n", "a capture has one completion");
}

export function readScore(request: ScoreRequest__Output, limits: RequestLimits): ScoreSpec {
  const check = new Checker();
  const { continuations, promptLogprobs } = request;
  check.atMost("continuations", continuations.length, limits.maxContinuations, "continuations");
  if (continuations.length === 0 && !promptLogprobs) {
    check.add("continuations", "is empty, and prompt_logprobs is not set");
  }
  const spec: ScoreSpec = {
    input: readInput(request, "", limits, check),
    continuations: continuations
      .slice(0, limits.maxContinuations)
      .map((continuation, index) => readContinuation(continuation, index, limits, check)),
    steering: readSteerings(request.steering, limits, check),
    adapterId: request.adapterId ?? "",
    logprobs: check.number("logprobs", request.logprobs, 0, { min: 0, max: limits.maxLogprobs }),
    promptLogprobs,
    minRegistryRevision: readRevision(request.minRegistryRevision),
  };
  check.throwIfAny();
  return spec;
}

function readContinuation(
  continuation: Continuation__Output,
  index: number,
  limits: RequestLimits,
  check: Checker,
): ContinuationSpec {
  const field = `continuations[${index}]`;
  if (continuation.value === "tokens") {
    const ids = readTokens(continuation.tokens ?? null, `${field}.tokens`, limits, check);
    return { kind: "tokens", ids };
  }
  const text = continuation.text ?? "";
  if (text === "") check.add(field, "is empty: text or tokens");
  check.atMost(`${field}.text`, Buffer.byteLength(text), limits.maxPromptBytes, "bytes");
  return { kind: "text", text };
}

export function readCaptureActivations(
  request: CaptureActivationsRequest__Output,
  limits: RequestLimits,
): CaptureActivationsSpec {
  const check = new Checker();
  const { inputs } = request;
  if (inputs.length === 0) check.add("inputs", "is empty");
  check.atMost("inputs", inputs.length, limits.maxCaptureInputs, "inputs");
  const sampling = request.sampling ? readSampling(request.sampling, limits, check) : null;
  if (sampling) requireOneCompletion(sampling, check);
  const spec: CaptureActivationsSpec = {
    inputs: inputs
      .slice(0, limits.maxCaptureInputs)
      .map((input, index) => readInput(input, `inputs[${index}].`, limits, check)),
    capture: readCapture(request.capture, limits, check),
    steering: readSteerings(request.steering, limits, check),
    adapterId: request.adapterId ?? "",
    sampling,
    minRegistryRevision: readRevision(request.minRegistryRevision),
  };
  check.throwIfAny();
  return spec;
}

export function readRevision(revision: string | undefined): bigint | null {
  return revision === undefined ? null : BigInt(revision);
}
