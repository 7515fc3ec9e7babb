/** The registry of steering vectors: VectorService. */
import type { Metadata } from "@grpc/grpc-js";
import type { VectorServiceClient } from "../generated/llamasteer/v1/VectorService.js";
import { type CallOptions, clientStream, serverStream, unary } from "./calls.js";
import { ClientError } from "./errors.js";
import type {
  CreateVectorRequest,
  DeleteVectorResponse,
  DeriveVectorRequest,
  DeriveVectorResponse,
  ExportVectorRequest,
  ExportVectorResponse,
  ImportVectorRequest,
  ImportVectorStart,
  ListVectorsRequest,
  ListVectorsResponse,
  Vector,
} from "./messages.js";

/** Bytes of one message of an upload; far below the limit of any server. */
const UPLOAD_CHUNK_BYTES = 256 * 1024;

/** A vector as a file. */
export interface VectorFile {
  vector: Vector;
  /** A name for it: `sentiment.gguf`. */
  fileName: string;
  content: Buffer;
}

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

  /**
   * Derives a vector from contrastive pairs and registers it: `progress` messages, then `vector`.
   * Leaving the loop early, or `signal`, stops the derivation; nothing is registered then.
   */
  derive(
    request: DeriveVectorRequest,
    options: CallOptions = {},
  ): AsyncGenerator<DeriveVectorResponse, void, undefined> {
    return serverStream(
      (...call) => this.#service.deriveVector(...call),
      request,
      this.#metadata,
      options,
    );
  }

  /** Registers a vector from a file in a known format: safetensors, GGUF, .svec, .npy, .npz, JSON. */
  import(
    start: ImportVectorStart,
    content: Uint8Array,
    options: CallOptions = {},
  ): Promise<Vector> {
    return clientStream(
      (...call) => this.#service.importVector(...call),
      uploadOf(start, content),
      this.#metadata,
      options,
    );
  }

  /** A vector as a file; safetensors unless the request says otherwise. */
  async export(request: ExportVectorRequest, options: CallOptions = {}): Promise<VectorFile> {
    const stream = serverStream<ExportVectorRequest, ExportVectorResponse>(
      (...call) => this.#service.exportVector(...call),
      request,
      this.#metadata,
      options,
    );
    const chunks: Buffer[] = [];
    let file: Omit<VectorFile, "content"> | undefined;
    let sizeBytes = 0;
    for await (const { header, chunk } of stream) {
      if (header?.vector) {
        file = { vector: header.vector, fileName: header.fileName };
        sizeBytes = Number(header.sizeBytes);
      }
      if (chunk) chunks.push(chunk);
    }
    const content = Buffer.concat(chunks);
    if (!file || content.length !== sizeBytes) {
      throw new ClientError("INTERNAL", `the server sent ${content.length} of ${sizeBytes} bytes`);
    }
    return { ...file, content };
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

function* uploadOf(start: ImportVectorStart, content: Uint8Array): Generator<ImportVectorRequest> {
  yield { start };
  for (let from = 0; from < content.length; from += UPLOAD_CHUNK_BYTES) {
    yield { chunk: Buffer.from(content.subarray(from, from + UPLOAD_CHUNK_BYTES)) };
  }
}
