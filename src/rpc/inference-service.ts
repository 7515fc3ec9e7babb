/** InferenceService: validate, hand to generation/, convert. */

import type { CaptureActivationsRequest__Output } from "../generated/llamasteer/v1/CaptureActivationsRequest.js";
import type { CaptureActivationsResponse } from "../generated/llamasteer/v1/CaptureActivationsResponse.js";
import type { GenerateRequest__Output } from "../generated/llamasteer/v1/GenerateRequest.js";
import type { GenerateResponse } from "../generated/llamasteer/v1/GenerateResponse.js";
import type { GenerateStreamResponse } from "../generated/llamasteer/v1/GenerateStreamResponse.js";
import type { InferenceServiceHandlers } from "../generated/llamasteer/v1/InferenceService.js";
import type { ScoreRequest__Output } from "../generated/llamasteer/v1/ScoreRequest.js";
import type { ScoreResponse } from "../generated/llamasteer/v1/ScoreResponse.js";
import { captureActivations } from "../generation/capture.js";
import { WholeCompletion } from "../generation/completions.js";
import type { Call } from "../generation/context.js";
import { type GenerationEvent, generate } from "../generation/generate.js";
import type { AppliedProbe } from "../generation/probes.js";
import { score } from "../generation/score.js";
import type { Metrics } from "../observability/metrics.js";
import { phase } from "../observability/tracing.js";
import type { BackendSlot } from "./backend.js";
import {
  appliedMessage,
  appliedProbeMessage,
  completionMessage,
  generationMessage,
  scoreMessage,
  timingsMessage,
  usageMessage,
} from "./convert.js";
import { captureMessage } from "./convert-capture.js";
import { observeGeneration } from "./generation-metrics.js";
import type { Handlers } from "./handlers.js";
import { readCaptureActivations, readGenerate, readScore } from "./validate.js";

export class InferenceService {
  constructor(
    private readonly slot: BackendSlot,
    private readonly metrics: Metrics,
  ) {}

  handlers(handlers: Handlers): InferenceServiceHandlers {
    return {
      Generate: handlers.unary((request: GenerateRequest__Output, call) =>
        this.generate(request, call),
      ),
      GenerateStream: handlers.stream((request: GenerateRequest__Output, call) =>
        this.generateStream(request, call),
      ),
      Score: handlers.unary((request: ScoreRequest__Output, call) => this.score(request, call)),
      CaptureActivations: handlers.stream((request: CaptureActivationsRequest__Output, call) =>
        this.captureActivations(request, call),
      ),
    };
  }

  private events(
    request: GenerateRequest__Output,
    call: Call,
    streaming: boolean,
  ): AsyncGenerator<GenerationEvent, void, undefined> {
    const { context, limits } = this.slot.require();
    const read = () => readGenerate(request, limits, streaming);
    const spec = phase(call.trace, "validate", read);
    return observeGeneration(generate(context, spec, call), this.metrics);
  }

  private async generate(request: GenerateRequest__Output, call: Call): Promise<GenerateResponse> {
    const completions = new Map<number, WholeCompletion>();
    let probes: AppliedProbe[] = [];
    const completionAt = (index: number) => {
      const completion = completions.get(index) ?? new WholeCompletion(probes);
      completions.set(index, completion);
      return completion;
    };
    const response: GenerateResponse = { modelFingerprint: this.fingerprint };
    for await (const event of this.events(request, call, false)) {
      switch (event.type) {
        case "started":
          probes = event.probes;
          response.probes = probes.map(appliedProbeMessage);
          response.adapterDigest = event.adapterDigest;
          response.seed = event.seed.toString();
          response.registryRevision = event.registryRevision.toString();
          break;
        case "delta":
          completionAt(event.completion).add(event);
          break;
        case "finished":
          response.completions = event.finishReasons.map((reason, index) =>
            completionMessage(completionAt(index).delta, reason),
          );
          response.usage = usageMessage(event.usage);
          response.timings = timingsMessage(event.timings);
          response.applied = event.applied.map(appliedMessage);
      }
    }
    return response;
  }

  private async *generateStream(
    request: GenerateRequest__Output,
    call: Call,
  ): AsyncGenerator<GenerateStreamResponse, void, undefined> {
    for await (const event of this.events(request, call, true)) {
      yield generationMessage(event, this.fingerprint);
    }
  }

  private async score(request: ScoreRequest__Output, call: Call): Promise<ScoreResponse> {
    const { context, limits } = this.slot.require();
    const spec = phase(call.trace, "validate", () => readScore(request, limits));
    return scoreMessage(await score(context, spec, call), this.fingerprint);
  }

  private async *captureActivations(
    request: CaptureActivationsRequest__Output,
    call: Call,
  ): AsyncGenerator<CaptureActivationsResponse, void, undefined> {
    const { context, limits } = this.slot.require();
    const spec = phase(call.trace, "validate", () => readCaptureActivations(request, limits));
    for await (const event of captureActivations(context, spec, call)) {
      yield captureMessage(event, this.fingerprint);
    }
  }

  private get fingerprint(): string {
    return this.slot.require().context.model.checkpoint.fingerprint;
  }
}
