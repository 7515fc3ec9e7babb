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
import type { Call } from "../generation/context.js";
import { type GenerationEvent, generate } from "../generation/generate.js";
import { score } from "../generation/score.js";
import type { NativeScoredToken } from "../native/binding.js";
import type { Metrics } from "../observability/metrics.js";
import type { BackendSlot } from "./backend.js";
import {
  appliedMessage,
  captureMessage,
  finishReason,
  generationMessage,
  logprobsMessage,
  scoreMessage,
  timingsMessage,
  usageMessage,
} from "./convert.js";
import { observeGeneration } from "./generation-metrics.js";
import type { Handlers } from "./handlers.js";
import { readCaptureActivations, readGenerate, readScore } from "./validate.js";

export class InferenceService {
  constructor(
    private readonly slot: BackendSlot,
    private readonly metrics: Metrics,
    private readonly captureEnabled: boolean,
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
    const spec = readGenerate(request, limits, streaming);
    return observeGeneration(generate(context, spec, call), this.metrics);
  }

  private async generate(request: GenerateRequest__Output, call: Call): Promise<GenerateResponse> {
    const completions = new CompletionList();
    const response: GenerateResponse = { modelFingerprint: this.fingerprint };
    for await (const event of this.events(request, call, false)) {
      switch (event.type) {
        case "started":
          response.seed = event.seed.toString();
          response.registryRevision = event.registryRevision.toString();
          break;
        case "delta":
          completions.add(event.completion, event.text, event.tokenIds, event.logprobs);
          break;
        case "finished":
          response.completions = completions.messages(event.finishReasons.map(finishReason));
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
    return scoreMessage(await score(context, readScore(request, limits), call), this.fingerprint);
  }

  private async *captureActivations(
    request: CaptureActivationsRequest__Output,
    call: Call,
  ): AsyncGenerator<CaptureActivationsResponse, void, undefined> {
    const { context, limits } = this.slot.require();
    const spec = readCaptureActivations(request, limits);
    for await (const event of captureActivations(context, spec, call, this.captureEnabled)) {
      yield captureMessage(event, this.fingerprint);
    }
  }

  private get fingerprint(): string {
    return this.slot.require().context.model.checkpoint.fingerprint;
  }
}

/** Completions of a unary answer as they grow. */
class CompletionList {
  private readonly parts: { text: string[]; tokenIds: number[]; scored: NativeScoredToken[] }[] =
    [];

  add(index: number, text: string, tokenIds: number[], scored: NativeScoredToken[]): void {
    const part = this.parts[index] ?? { text: [], tokenIds: [], scored: [] };
    this.parts[index] = part;
    part.text.push(text);
    part.tokenIds.push(...tokenIds);
    part.scored.push(...scored);
  }

  messages(reasons: ReturnType<typeof finishReason>[]) {
    return reasons.map((reason, index) => {
      const part = this.parts[index];
      return {
        text: part?.text.join("") ?? "",
        tokenIds: part?.tokenIds ?? [],
        logprobs: logprobsMessage(part?.scored ?? []),
        finishReason: reason,
      };
    });
  }
}
