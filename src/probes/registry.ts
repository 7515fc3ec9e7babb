/**
 * Probes as the service sees them: a direction for one block, how well it does on its own pairs, and,
 * once calibrated, a threshold. They live in the store of the vectors under ids of their own.
 */
import { EngineFault } from "../errors.js";
import { type ListQuery, listPage, type RecordPage } from "../vectors/list.js";
import type { Replica } from "../vectors/replica.js";
import type { ResidentPin, ResidentVectors } from "../vectors/resident.js";
import {
  type Calibration,
  checkFits,
  checkLabels,
  checkVectorId,
  type Derivation,
  type Discrimination,
  type LabelLimits,
  type ModelShape,
  type ProbeFacts,
  packRows,
  type VectorRecord,
  type VectorRow,
} from "../vectors/vector.js";

export interface CreateProbe {
  id: string;
  row: VectorRow;
  labels: Record<string, string>;
  derivation: Derivation;
  /** Of the derivation set. */
  meanResidualNorm: number;
  fit: Discrimination;
}

/** A probe whose direction stays on the engine until `release`, whatever happens to its id. */
export interface PinnedProbe extends ResidentPin {
  probeId: string;
  /** Block after which it reads. */
  layer: number;
  /** A score above it fires; null: not calibrated. */
  threshold: number | null;
}

export class ProbeRegistry {
  constructor(
    private readonly replica: Replica,
    private readonly resident: ResidentVectors,
    private readonly model: ModelShape,
    private readonly limits: LabelLimits,
  ) {}

  get size(): number {
    return this.replica.records("probe").size;
  }

  get revision(): bigint {
    return this.replica.revision;
  }

  /** For what can be told before any work is done. Throws InvalidArgumentError. */
  checkNew(id: string, labels: Record<string, string>): void {
    checkVectorId(id, "probe_id");
    checkLabels(labels, this.limits, "labels");
  }

  /**
   * The same id, content and labels again return the record that is there. Throws
   * InvalidArgumentError, AlreadyExistsError, ResourceExhaustedError, UnavailableError.
   */
  async create(request: CreateProbe): Promise<VectorRecord> {
    const { id, row, labels, derivation, meanResidualNorm, fit } = request;
    this.checkNew(id, labels);
    return this.replica.put({
      kind: "probe",
      id,
      content: packRows([row], this.model, "pairs"),
      labels,
      derivation,
      meanResidualNorms: [meanResidualNorm],
      probe: { fit, calibration: null },
      replaces: false,
    });
  }

  /** Throws NotFoundError when the probe was removed or replaced meanwhile, UnavailableError. */
  async calibrate(record: VectorRecord, calibration: Calibration): Promise<VectorRecord> {
    return this.replica.put({
      kind: "probe",
      id: record.id,
      content: record.content,
      labels: record.labels,
      derivation: record.derivation,
      meanResidualNorms: record.stats.map(({ meanResidualNorm }) => meanResidualNorm),
      probe: { ...factsOf(record), calibration },
      replaces: true,
    });
  }

  /** `reference` may be pinned. Throws InvalidArgumentError, NotFoundError. */
  get(reference: string, field = "probe_id"): VectorRecord {
    return this.replica.get("probe", reference, field);
  }

  /** As `get`, of a probe that fits the model. */
  getFitting(reference: string, field = "probe_id"): VectorRecord {
    const record = this.get(reference, field);
    checkFits(record, this.model, field);
    return record;
  }

  /** Field paths are those of ListProbesRequest. Throws InvalidArgumentError. */
  list(query: ListQuery): RecordPage {
    return listPage(this.replica.records("probe"), query);
  }

  /** Resolves to the revision that removed it. Throws NotFoundError, UnavailableError. */
  remove(reference: string): Promise<bigint> {
    return this.replica.remove("probe", reference, "probe_id");
  }

  /**
   * Pins what the id names now. Throws InvalidArgumentError when the probe does not fit the model,
   * NotFoundError, ResourceExhaustedError.
   */
  acquire(reference: string, field: string): PinnedProbe {
    const record = this.getFitting(reference, field);
    const pin = this.resident.acquire(record.digest, record.content);
    return {
      ...pin,
      probeId: record.id,
      layer: layerOf(record),
      threshold: factsOf(record).calibration?.threshold ?? null,
    };
  }

  /** See Replica. */
  waitForRevision(revision: bigint | null, signal: AbortSignal): Promise<void> {
    return this.replica.waitForRevision(revision, signal);
  }
}

/** Of a record of kind "probe". */
export function factsOf(record: VectorRecord): ProbeFacts {
  if (record.probe === null) throw new EngineFault(`"${record.id}" is no probe`);
  return record.probe;
}

/** Of a record of kind "probe". */
export function layerOf(record: VectorRecord): number {
  const [layer] = record.layers;
  if (layer === undefined) throw new EngineFault(`"${record.id}" has no layer`);
  return layer;
}
