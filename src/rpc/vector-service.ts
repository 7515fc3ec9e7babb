/** VectorService over the registry. */
import type { CreateVectorRequest__Output } from "../generated/llamasteer/v1/CreateVectorRequest.js";
import type { DeleteVectorRequest__Output } from "../generated/llamasteer/v1/DeleteVectorRequest.js";
import type { DeleteVectorResponse } from "../generated/llamasteer/v1/DeleteVectorResponse.js";
import type { DeriveVectorRequest__Output } from "../generated/llamasteer/v1/DeriveVectorRequest.js";
import type { ExportVectorRequest__Output } from "../generated/llamasteer/v1/ExportVectorRequest.js";
import type { GetVectorRequest__Output } from "../generated/llamasteer/v1/GetVectorRequest.js";
import type { ImportVectorRequest__Output } from "../generated/llamasteer/v1/ImportVectorRequest.js";
import type { ListVectorsRequest__Output } from "../generated/llamasteer/v1/ListVectorsRequest.js";
import type { ListVectorsResponse } from "../generated/llamasteer/v1/ListVectorsResponse.js";
import type { Vector } from "../generated/llamasteer/v1/Vector.js";
import type { VectorServiceHandlers } from "../generated/llamasteer/v1/VectorService.js";
import type { Call } from "../generation/context.js";
import type { ByteBudget } from "../vectors/byte-budget.js";
import { rowsFromWire } from "../vectors/vector.js";
import type { BackendSlot } from "./backend.js";
import { Checker } from "./checker.js";
import { vectorMessage } from "./convert-vector.js";
import { deriveVector } from "./derive-vector.js";
import type { Handlers } from "./handlers.js";
import { readRevision } from "./validate.js";
import { exportVector, importVector } from "./vector-files.js";

/** Memory that calls of a kind share. */
export interface SharedMemory {
  activations: ByteBudget;
  uploads: ByteBudget;
}

export class VectorService {
  constructor(
    private readonly slot: BackendSlot,
    private readonly memory: SharedMemory,
  ) {}

  handlers(handlers: Handlers): VectorServiceHandlers {
    return {
      CreateVector: handlers.unary((request: CreateVectorRequest__Output) => this.create(request)),
      GetVector: handlers.unary((request: GetVectorRequest__Output, call) =>
        this.get(request, call),
      ),
      ListVectors: handlers.unary((request: ListVectorsRequest__Output) => this.list(request)),
      DeleteVector: handlers.unary((request: DeleteVectorRequest__Output) => this.remove(request)),
      ImportVector: handlers.upload((requests: AsyncIterable<ImportVectorRequest__Output>, call) =>
        this.import(requests, call),
      ),
      ExportVector: handlers.stream((request: ExportVectorRequest__Output, call) =>
        exportVector(this.slot.require().context, request, call),
      ),
      DeriveVector: handlers.stream((request: DeriveVectorRequest__Output, call) => {
        const { context, limits } = this.slot.require();
        return deriveVector(
          { context, limits, activations: this.memory.activations },
          request,
          call,
        );
      }),
    };
  }

  private get registry() {
    return this.slot.require().context.vectors;
  }

  private async create(request: CreateVectorRequest__Output): Promise<Vector> {
    const { layers } = this.slot.require().limits;
    const check = new Checker();
    check.atMost("rows", request.rows.length, layers, "rows");
    check.throwIfAny();
    const record = await this.registry.create({
      id: request.vectorId,
      rows: rowsFromWire(request.rows, "rows"),
      labels: request.labels,
      derivation: null,
    });
    return vectorMessage(record);
  }

  private async import(
    requests: AsyncIterable<ImportVectorRequest__Output>,
    call: Call,
  ): Promise<Vector> {
    const { context, limits } = this.slot.require();
    return vectorMessage(await importVector(context, limits, this.memory.uploads, requests, call));
  }

  private async get(request: GetVectorRequest__Output, call: Call): Promise<Vector> {
    const { registry } = this;
    await registry.waitForRevision(readRevision(request.minRegistryRevision), call.signal);
    return vectorMessage(registry.get(request.vectorId));
  }

  private list(request: ListVectorsRequest__Output): ListVectorsResponse {
    const { registry } = this;
    const { pageSize, pageToken, filter } = request;
    const page = registry.list({ pageSize, pageToken, filter });
    return {
      vectors: page.records.map(vectorMessage),
      nextPageToken: page.nextPageToken,
      revision: registry.revision.toString(),
    };
  }

  private async remove(request: DeleteVectorRequest__Output): Promise<DeleteVectorResponse> {
    return { revision: (await this.registry.remove(request.vectorId)).toString() };
  }
}
