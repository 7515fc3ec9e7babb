/** The model that is served, and its tokenizer: ModelService. */
import type { Metadata } from "@grpc/grpc-js";
import type { DetokenizeRequest } from "../generated/llamasteer/v1/DetokenizeRequest.js";
import type { DetokenizeResponse__Output } from "../generated/llamasteer/v1/DetokenizeResponse.js";
import type { LoadAdapterRequest } from "../generated/llamasteer/v1/LoadAdapterRequest.js";
import type { LoadAdapterResponse__Output } from "../generated/llamasteer/v1/LoadAdapterResponse.js";
import type { ModelServiceClient } from "../generated/llamasteer/v1/ModelService.js";
import type { UnloadAdapterRequest } from "../generated/llamasteer/v1/UnloadAdapterRequest.js";
import type { UnloadAdapterResponse__Output } from "../generated/llamasteer/v1/UnloadAdapterResponse.js";
import { type CallOptions, unary } from "./calls.js";
import { ClientError } from "./errors.js";
import type {
  Adapter,
  Chat,
  GetModelResponse,
  RenderChatResponse,
  TokenizeRequest,
  TokenizeResponse,
} from "./messages.js";

export class ModelClient {
  readonly #service: ModelServiceClient;
  readonly #metadata: Metadata;

  constructor(service: ModelServiceClient, metadata: Metadata) {
    this.#service = service;
    this.#metadata = metadata;
  }

  /** What is served, on what, and every limit in force. */
  get(options: CallOptions = {}): Promise<GetModelResponse> {
    return unary((...call) => this.#service.getModel(...call), {}, this.#metadata, options);
  }

  /** Text to token ids. */
  tokenize(request: TokenizeRequest, options: CallOptions = {}): Promise<TokenizeResponse> {
    return unary((...call) => this.#service.tokenize(...call), request, this.#metadata, options);
  }

  /** Token ids to text. */
  async detokenize(
    tokenIds: readonly number[],
    { skipSpecialTokens = false, ...options }: CallOptions & { skipSpecialTokens?: boolean } = {},
  ): Promise<string> {
    const response = await unary<DetokenizeRequest, DetokenizeResponse__Output>(
      (...call) => this.#service.detokenize(...call),
      { tokenIds: [...tokenIds], skipSpecialTokens },
      this.#metadata,
      options,
    );
    return response.text;
  }

  /** Loads the adapter in the folder of this name below the server's --adapter-dir. */
  async loadAdapter(adapterId: string, options: CallOptions = {}): Promise<Adapter> {
    const { adapter } = await unary<LoadAdapterRequest, LoadAdapterResponse__Output>(
      (...call) => this.#service.loadAdapter(...call),
      { adapterId },
      this.#metadata,
      options,
    );
    if (!adapter) throw new ClientError("INTERNAL", "the server named no adapter");
    return adapter;
  }

  /** Requests that run keep it to their end. */
  async unloadAdapter(adapterId: string, options: CallOptions = {}): Promise<void> {
    await unary<UnloadAdapterRequest, UnloadAdapterResponse__Output>(
      (...call) => this.#service.unloadAdapter(...call),
      { adapterId },
      this.#metadata,
      options,
    );
  }

  /** A conversation through the checkpoint's chat template. */
  renderChat(chat: Chat, options: CallOptions = {}): Promise<RenderChatResponse> {
    return unary((...call) => this.#service.renderChat(...call), { chat }, this.#metadata, options);
  }
}
