/** From messages of the contract to what generation/ works on. Throws before any work is done. */
import { invalid, NotFoundError, UnimplementedError } from "../errors.js";
import type { CaptureActivationsRequest__Output } from "../generated/llamasteer/v1/CaptureActivationsRequest.js";
import type { Continuation__Output } from "../generated/llamasteer/v1/Continuation.js";
import type { GenerateRequest__Output } from "../generated/llamasteer/v1/GenerateRequest.js";
import type { ScoreRequest__Output } from "../generated/llamasteer/v1/ScoreRequest.js";
import type { CaptureActivationsSpec } from "../generation/capture.js";
import type { GenerateSpec } from "../generation/generate.js";
import type { ContinuationSpec, ScoreSpec } from "../generation/score.js";
import { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { readCapture } from "./validate-capture.js";
import { readInput, readTokens } from "./validate-input.js";
import { readSampling } from "./validate-sampling.js";
import { readSteerings } from "./validate-steering.js";

export function readGenerate(
  request: GenerateRequest__Output,
  limits: RequestLimits,
  streaming: boolean,
): GenerateSpec {
  refuseAdapter(request.adapterId);
  const [probe] = request.probes;
  if (probe) throw new NotFoundError("probe", probe.probeId.slice(0, MAX_ECHO_CHARACTERS));
  if (request.compareUnsteered) throw new UnimplementedError("compare_unsteered");
  if (request.capture) {
    if (!streaming) throw invalid("capture", "is for GenerateStream only");
    throw new UnimplementedError("capture while generating");
  }
  const check = new Checker();
  const spec: GenerateSpec = {
    input: readInput(request, "", limits, check),
    steering: readSteerings(request.steering, limits, check),
    sampling: readSampling(request.sampling, limits, check),
    minRegistryRevision: readRevision(request.minRegistryRevision),
  };
  check.throwIfAny();
  return spec;
}

export function readScore(request: ScoreRequest__Output, limits: RequestLimits): ScoreSpec {
  refuseAdapter(request.adapterId);
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
  refuseAdapter(request.adapterId);
  if (request.sampling) throw new UnimplementedError("sampling in CaptureActivations");
  const check = new Checker();
  const { inputs } = request;
  if (inputs.length === 0) check.add("inputs", "is empty");
  check.atMost("inputs", inputs.length, limits.maxCaptureInputs, "inputs");
  const spec: CaptureActivationsSpec = {
    inputs: inputs
      .slice(0, limits.maxCaptureInputs)
      .map((input, index) => readInput(input, `inputs[${index}].`, limits, check)),
    capture: readCapture(request.capture, limits, check),
    steering: readSteerings(request.steering, limits, check),
    minRegistryRevision: readRevision(request.minRegistryRevision),
  };
  check.throwIfAny();
  return spec;
}

const MAX_ECHO_CHARACTERS = 63;

/** No adapter is loaded, so every id is unknown. */
function refuseAdapter(adapterId: string | undefined): void {
  if (!adapterId) return;
  throw new NotFoundError("adapter", adapterId.slice(0, MAX_ECHO_CHARACTERS));
}

export function readRevision(revision: string | undefined): bigint | null {
  return revision === undefined ? null : BigInt(revision);
}
