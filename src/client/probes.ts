/** Linear probes on the residual stream: ProbeService. */
import type { Metadata } from "@grpc/grpc-js";
import type { ProbeServiceClient } from "../generated/llamasteer/v1/ProbeService.js";
import { type CallOptions, unary } from "./calls.js";
import type {
  CalibrateProbeRequest,
  DeleteProbeResponse,
  FitProbeRequest,
  ListProbesRequest,
  ListProbesResponse,
  Probe,
  ScoreProbeRequest,
  ScoreProbeResponse,
} from "./messages.js";

export class ProbesClient {
  readonly #service: ProbeServiceClient;
  readonly #metadata: Metadata;

  constructor(service: ProbeServiceClient, metadata: Metadata) {
    this.#service = service;
    this.#metadata = metadata;
  }

  /** Fits a probe to contrastive pairs and registers it; the same content again is a success. */
  fit(request: FitProbeRequest, options: CallOptions = {}): Promise<Probe> {
    return unary((...call) => this.#service.fitProbe(...call), request, this.#metadata, options);
  }

  /** Sets the threshold at a false-positive rate on benign texts; replaces an earlier one. */
  calibrate(request: CalibrateProbeRequest, options: CallOptions = {}): Promise<Probe> {
    return unary(
      (...call) => this.#service.calibrateProbe(...call),
      request,
      this.#metadata,
      options,
    );
  }

  /** Scores texts; for labelled ones also the AUROC, beside that of random directions. */
  score(request: ScoreProbeRequest, options: CallOptions = {}): Promise<ScoreProbeResponse> {
    return unary((...call) => this.#service.scoreProbe(...call), request, this.#metadata, options);
  }

  /** `probeId` may pin the content: `defection@sha256:<12 or more hex digits>`. */
  get(probeId: string, options: CallOptions = {}): Promise<Probe> {
    return unary(
      (...call) => this.#service.getProbe(...call),
      { probeId },
      this.#metadata,
      options,
    );
  }

  /** One page. */
  listPage(
    request: ListProbesRequest = {},
    options: CallOptions = {},
  ): Promise<ListProbesResponse> {
    return unary((...call) => this.#service.listProbes(...call), request, this.#metadata, options);
  }

  /** Every probe that has all these labels, by rising id, page after page. */
  async *list(
    filter: Readonly<Record<string, string>> = {},
    options: CallOptions = {},
  ): AsyncGenerator<Probe, void, undefined> {
    let pageToken = "";
    do {
      const page = await this.listPage({ filter: { ...filter }, pageToken }, options);
      yield* page.probes;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** Removes an id; with a pinned id only if the content matches. */
  delete(probeId: string, options: CallOptions = {}): Promise<DeleteProbeResponse> {
    return unary(
      (...call) => this.#service.deleteProbe(...call),
      { probeId },
      this.#metadata,
      options,
    );
  }
}
