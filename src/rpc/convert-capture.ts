/** Messages of a capture stream. */
import type { CaptureActivationsResponse } from "../generated/llamasteer/v1/CaptureActivationsResponse.js";
import type { CaptureEvent } from "../generation/capture.js";
import { appliedMessage, completionMessage, usageMessage } from "./convert.js";
import { activationsMessage } from "./convert-activations.js";

export function captureMessage(
  event: CaptureEvent,
  modelFingerprint: string,
): CaptureActivationsResponse {
  switch (event.type) {
    case "activations":
      return { activations: activationsMessage(event.inputIndex, event.event) };
    case "completion":
      return {
        completion: {
          inputIndex: event.inputIndex,
          completion: completionMessage(event.completion, event.finishReason),
          seed: event.seed.toString(),
        },
      };
    case "finished":
      return {
        finished: {
          usage: usageMessage(event.usage),
          applied: event.applied.map(appliedMessage),
          adapterDigest: event.adapterDigest,
          modelFingerprint,
          registryRevision: event.registryRevision.toString(),
        },
      };
  }
}
