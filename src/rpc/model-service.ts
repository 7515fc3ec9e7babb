/** ModelService: what is served, and its tokenizer. */
import type { Config } from "../config/schema.js";
import { invalid } from "../errors.js";
import type { Adapter } from "../generated/llamasteer/v1/Adapter.js";
import type { DetokenizeRequest__Output } from "../generated/llamasteer/v1/DetokenizeRequest.js";
import type { DetokenizeResponse } from "../generated/llamasteer/v1/DetokenizeResponse.js";
import type { GetModelResponse } from "../generated/llamasteer/v1/GetModelResponse.js";
import type { Limits } from "../generated/llamasteer/v1/Limits.js";
import type { LoadAdapterRequest__Output } from "../generated/llamasteer/v1/LoadAdapterRequest.js";
import type { LoadAdapterResponse } from "../generated/llamasteer/v1/LoadAdapterResponse.js";
import type { ModelServiceHandlers } from "../generated/llamasteer/v1/ModelService.js";
import type { RenderChatRequest__Output } from "../generated/llamasteer/v1/RenderChatRequest.js";
import type { RenderChatResponse } from "../generated/llamasteer/v1/RenderChatResponse.js";
import type { TokenizeRequest__Output } from "../generated/llamasteer/v1/TokenizeRequest.js";
import type { TokenizeResponse } from "../generated/llamasteer/v1/TokenizeResponse.js";
import type { UnloadAdapterRequest__Output } from "../generated/llamasteer/v1/UnloadAdapterRequest.js";
import type { UnloadAdapterResponse } from "../generated/llamasteer/v1/UnloadAdapterResponse.js";
import type { AdapterInfo } from "../model/adapters.js";
import { renderChat } from "../model/model.js";
import { AdapterLoading } from "./adapter-loading.js";
import type { BackendSlot } from "./backend.js";
import { Checker } from "./checker.js";
import type { Handlers } from "./handlers.js";
import { checkTokenIds, readChat } from "./validate-input.js";

export class ModelService {
  private readonly adapterLoading: AdapterLoading;

  constructor(
    private readonly slot: BackendSlot,
    private readonly config: Config,
    private readonly serverVersion: string,
  ) {
    this.adapterLoading = new AdapterLoading(config.adapterDir);
  }

  handlers(handlers: Handlers): ModelServiceHandlers {
    return {
      GetModel: handlers.unary(() => this.getModel()),
      Tokenize: handlers.unary((request: TokenizeRequest__Output) => this.tokenize(request)),
      Detokenize: handlers.unary((request: DetokenizeRequest__Output) => this.detokenize(request)),
      LoadAdapter: handlers.unary((request: LoadAdapterRequest__Output) =>
        this.loadAdapter(request),
      ),
      UnloadAdapter: handlers.unary((request: UnloadAdapterRequest__Output) =>
        this.unloadAdapter(request),
      ),
      RenderChat: handlers.unary((request: RenderChatRequest__Output) => this.renderChat(request)),
    };
  }

  private getModel(): GetModelResponse {
    const { context, engine } = this.slot.require();
    const { checkpoint, config, name, chatTemplate, mergedAdapterDigest } = context.model;
    const adapters = context.adapters.list();
    return {
      name,
      fingerprint: checkpoint.fingerprint,
      architecture: {
        layers: config.layers,
        hiddenSize: config.hiddenSize,
        intermediateSize: config.intermediateSize,
        queryHeads: config.queryHeads,
        kvHeads: config.kvHeads,
        headSize: config.headSize,
        vocabSize: config.vocabSize,
      },
      contextTokens: config.contextTokens,
      dtype: engine.weightDtype,
      kvDtype: engine.kvDtype,
      device: engine.device,
      adapters: adapters.map(({ id }) => id),
      adapterDetails: adapters.map(adapterMessage),
      adapterLoadingEnabled: this.adapterLoading.enabled,
      mergedAdapterDigest,
      limits: this.limits(config.contextTokens, context.kvCacheTokens),
      serverVersion: this.serverVersion,
      eosTokenIds: checkpoint.eosTokenIds,
      captureEnabled: this.config.capture,
      chatTemplate: chatTemplate !== null,
      registryRevision: context.vectors.revision.toString(),
    };
  }

  private limits(contextTokens: number, kvCacheTokens: number): Limits {
    const { config } = this;
    return {
      maxNewTokens: contextTokens,
      maxCompletions: config.maxCompletions,
      maxSteerings: config.maxSteerings,
      maxCoefficient: config.maxCoefficient,
      maxStopTexts: config.maxStopTexts,
      maxStopTextBytes: config.maxStopTextBytes,
      maxStopTokenIds: config.maxStopTokenIds,
      maxLogprobs: config.maxLogprobs,
      maxLogitBiases: config.maxLogitBiases,
      maxChatMessages: config.maxChatMessages,
      maxPromptBytes: config.maxPromptBytes,
      maxContinuations: config.maxContinuations,
      maxCaptureInputs: config.maxCaptureInputs,
      maxLabels: config.maxLabels,
      maxLabelBytes: config.maxLabelBytes,
      maxMessageBytes: config.maxMessageBytes,
      maxWaitingRequests: config.maxWaitingRequests,
      maxWaitingPromptTokens: config.maxWaitingPromptTokens,
      kvCacheTokens,
      maxProbes: config.maxProbes,
      maxAfterTextBytes: config.maxAfterTextBytes,
      maxLensTopK: config.maxLensTopK,
      maxCaptureStreamBytes: config.maxCaptureStreamBytes,
      maxCaptureBufferBytes: config.maxCaptureBufferBytes,
      maxCaptureChunkBytes: config.maxCaptureChunkBytes,
      maxAdapterBytes: config.maxAdapterBytes,
      maxPairs: config.maxPairs,
      maxDeriveBytes: config.maxDeriveBytes,
      maxImportBytes: config.maxImportBytes,
      maxProbeInputs: config.maxProbeInputs,
      maxRandomDirections: config.maxRandomDirections,
    };
  }

  private async loadAdapter({
    adapterId,
  }: LoadAdapterRequest__Output): Promise<LoadAdapterResponse> {
    const { adapters } = this.slot.require().context;
    return { adapter: adapterMessage(await this.adapterLoading.load(adapters, adapterId)) };
  }

  private unloadAdapter({ adapterId }: UnloadAdapterRequest__Output): UnloadAdapterResponse {
    this.adapterLoading.unload(this.slot.require().context.adapters, adapterId);
    return {};
  }

  private async tokenize(request: TokenizeRequest__Output): Promise<TokenizeResponse> {
    const { context, limits } = this.slot.require();
    const check = new Checker();
    check.atMost("text", Buffer.byteLength(request.text), limits.maxPromptBytes, "bytes");
    check.throwIfAny();
    const { tokenizer } = context.model;
    const tokenIds = await tokenizer.encode(request.text, request.addSpecialTokens ?? true);
    return { tokenIds, pieces: tokenIds.map((id) => tokenizer.piece(id)) };
  }

  private detokenize(request: DetokenizeRequest__Output): DetokenizeResponse {
    const { context, limits } = this.slot.require();
    const { tokenIds, skipSpecialTokens } = request;
    const check = new Checker();
    // Decoding happens on the event loop.
    check.atMost("token_ids", tokenIds.length, limits.contextTokens, "token ids");
    checkTokenIds("token_ids", tokenIds, limits, check);
    check.throwIfAny();
    return { text: context.model.tokenizer.decode(tokenIds, skipSpecialTokens) };
  }

  private async renderChat(request: RenderChatRequest__Output): Promise<RenderChatResponse> {
    const { context, limits } = this.slot.require();
    if (!request.chat) throw invalid("chat", "is missing");
    const check = new Checker();
    const chat = readChat(request.chat, "chat", limits, check);
    check.throwIfAny();
    const text = renderChat(context.model, chat, "chat");
    return { text, tokenIds: await context.model.tokenizer.encode(text, false) };
  }
}

function adapterMessage({ id, digest, rank, modules, sizeBytes }: AdapterInfo): Adapter {
  return { adapterId: id, digest, rank, modules: [...modules], sizeBytes };
}
