/** The registry of steering vectors: VectorService. */
import type { Metadata } from "@grpc/grpc-js";
import type { VectorServiceClient } from "../generated/llamasteer/v1/VectorService.js";
import { type CallOptions, unary } from "./calls.js";
import type {
  CreateVectorRequest,
  DeleteVectorResponse,
  ListVectorsRequest,
  ListVectorsResponse,
  Vector,
} from "./messages.js";

export class VectorsClient {
  readonly #service: VectorServiceClient;
  readonly #metadata: Metadata;

  constructor(service: VectorServiceClient, metadata: Metadata) {
    this.#service = service;
    this.#metadata = metadata;
  }

  /** Registers a vector; the same content under the same id again is a success. */
  create(request: CreateVectorRequest, options: CallOptions = {}): Promise<Vector> {
    return unary(
      (...call) => this.#service.createVector(...call),
      request,
      this.#metadata,
      options,
    );
  }

  /** `vectorId` may pin the content: `sentiment@sha256:<12 or more hex digits>`. */
  get(vectorId: string, options: CallOptions = {}): Promise<Vector> {
    return unary(
      (...call) => this.#service.getVector(...call),
      { vectorId },
      this.#metadata,
      options,
    );
  }

  /** One page. */
  listPage(
    request: ListVectorsRequest = {},
    options: CallOptions = {},
  ): Promise<ListVectorsResponse> {
    return unary((...call) => this.#service.listVectors(...call), request, this.#metadata, options);
  }

  /** Every vector that has all these labels, by rising id, page after page. */
  async *list(
    filter: Readonly<Record<string, string>> = {},
    options: CallOptions = {},
  ): AsyncGenerator<Vector, void, undefined> {
    let pageToken = "";
    do {
      const page = await this.listPage({ filter: { ...filter }, pageToken }, options);
      yield* page.vectors;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** Removes an id; with a pinned id only if the content matches. */
  delete(vectorId: string, options: CallOptions = {}): Promise<DeleteVectorResponse> {
    return unary(
      (...call) => this.#service.deleteVector(...call),
      { vectorId },
      this.#metadata,
      options,
    );
  }
}
