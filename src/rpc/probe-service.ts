/** ProbeService over the registry. */
import type { CalibrateProbeRequest__Output } from "../generated/llamasteer/v1/CalibrateProbeRequest.js";
import type { DeleteProbeRequest__Output } from "../generated/llamasteer/v1/DeleteProbeRequest.js";
import type { FitProbeRequest__Output } from "../generated/llamasteer/v1/FitProbeRequest.js";
import type { GetProbeRequest__Output } from "../generated/llamasteer/v1/GetProbeRequest.js";
import type { ListProbesRequest__Output } from "../generated/llamasteer/v1/ListProbesRequest.js";
import type { ListProbesResponse } from "../generated/llamasteer/v1/ListProbesResponse.js";
import type { Probe } from "../generated/llamasteer/v1/Probe.js";
import type { ProbeServiceHandlers } from "../generated/llamasteer/v1/ProbeService.js";
import type { ScoreProbeRequest__Output } from "../generated/llamasteer/v1/ScoreProbeRequest.js";
import type { Call } from "../generation/context.js";
import type { BackendSlot } from "./backend.js";
import { probeMessage } from "./convert-vector.js";
import type { DerivationRoom } from "./derive-vector.js";
import type { Handlers } from "./handlers.js";
import { calibrateProbe, fitProbe, scoreProbe } from "./probe-calls.js";
import { readRevision } from "./validate.js";
import type { SharedMemory } from "./vector-service.js";

export class ProbeService {
  constructor(
    private readonly slot: BackendSlot,
    private readonly memory: SharedMemory,
  ) {}

  handlers(handlers: Handlers): ProbeServiceHandlers {
    return {
      FitProbe: handlers.unary(async (request: FitProbeRequest__Output, call) =>
        probeMessage(await fitProbe(this.room, request, call)),
      ),
      CalibrateProbe: handlers.unary(async (request: CalibrateProbeRequest__Output, call) =>
        probeMessage(await calibrateProbe(this.room, request, call)),
      ),
      ScoreProbe: handlers.unary((request: ScoreProbeRequest__Output, call) =>
        scoreProbe(this.room, request, call),
      ),
      GetProbe: handlers.unary((request: GetProbeRequest__Output, call) => this.get(request, call)),
      ListProbes: handlers.unary((request: ListProbesRequest__Output) => this.list(request)),
      DeleteProbe: handlers.unary(async ({ probeId }: DeleteProbeRequest__Output) => ({
        revision: (await this.registry.remove(probeId)).toString(),
      })),
    };
  }

  private get room(): DerivationRoom {
    const { context, limits } = this.slot.require();
    return { context, limits, activations: this.memory.activations };
  }

  private get registry() {
    return this.slot.require().context.probes;
  }

  private async get(request: GetProbeRequest__Output, call: Call): Promise<Probe> {
    const { registry } = this;
    await registry.waitForRevision(readRevision(request.minRegistryRevision), call.signal);
    return probeMessage(registry.get(request.probeId));
  }

  private list(request: ListProbesRequest__Output): ListProbesResponse {
    const { registry } = this;
    const { pageSize, pageToken, filter } = request;
    const page = registry.list({ pageSize, pageToken, filter });
    return {
      probes: page.records.map(probeMessage),
      nextPageToken: page.nextPageToken,
      revision: registry.revision.toString(),
    };
  }
}
