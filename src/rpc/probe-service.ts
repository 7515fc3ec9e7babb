/** ProbeService. */
import { UnimplementedError } from "../errors.js";
import type { ProbeServiceHandlers } from "../generated/llamasteer/v1/ProbeService.js";
import type { Handlers } from "./handlers.js";

export class ProbeService {
  handlers(handlers: Handlers): ProbeServiceHandlers {
    return {
      FitProbe: handlers.unary(() => notServed("FitProbe")),
      CalibrateProbe: handlers.unary(() => notServed("CalibrateProbe")),
      ScoreProbe: handlers.unary(() => notServed("ScoreProbe")),
      GetProbe: handlers.unary(() => notServed("GetProbe")),
      ListProbes: handlers.unary(() => notServed("ListProbes")),
      DeleteProbe: handlers.unary(() => notServed("DeleteProbe")),
    };
  }
}

function notServed(method: string): never {
  throw new UnimplementedError(method);
}
