/**
 * Vectors as the service sees them: every read is answered from memory, every write goes through the
 * store, and a request pins the content it began with.
 */
import { digestOf } from "./digest.js";
import { type ListQuery, listPage, type RecordPage } from "./list.js";
import { Replica } from "./replica.js";
import {
  type OnVectorLoad,
  type ResidentPin,
  ResidentVectors,
  type VectorEngine,
} from "./resident.js";
import type { VectorStore } from "./store.js";
import {
  checkFits,
  checkLabels,
  checkVectorId,
  type Derivation,
  type LabelLimits,
  type ModelShape,
  packRows,
  type VectorRecord,
  type VectorRow,
} from "./vector.js";

export interface RegistryLimits extends LabelLimits {
  /** Rows on the engine, bytes. */
  maxResidentBytes: number;
  /** Rows of all registered vectors and probes, bytes. */
  maxRegistryBytes: number;
}

export interface CreateVector {
  id: string;
  rows: readonly VectorRow[];
  labels: Record<string, string>;
  derivation: Derivation | null;
  /** Of the derivation set, one a row, by rising layer; empty: unknown. */
  meanResidualNorms?: readonly number[];
}

/** A vector that stays on the engine until `release`, whatever happens to its id. */
export interface PinnedVector extends ResidentPin {
  /** Empty for an inline vector. */
  vectorId: string;
}

export class VectorRegistry {
  private constructor(
    /** Vectors and probes. */
    readonly replica: Replica,
    /** Rows on the engine, of vectors and probes alike. */
    readonly resident: ResidentVectors,
    private readonly model: ModelShape,
    private readonly limits: LabelLimits,
  ) {}

  /** Takes over the store: `close` closes it. */
  static async open(
    store: VectorStore,
    engine: VectorEngine,
    model: ModelShape,
    limits: RegistryLimits,
    onVectorLoad?: OnVectorLoad,
  ): Promise<VectorRegistry> {
    const replica = await Replica.open(store, limits.maxRegistryBytes);
    const resident = new ResidentVectors(engine, limits.maxResidentBytes, onVectorLoad);
    return new VectorRegistry(replica, resident, model, limits);
  }

  /** The newest revision that reads show. */
  get revision(): bigint {
    return this.replica.revision;
  }

  /** Since the store was last asked for changes with success. */
  get syncAgeSeconds(): number {
    return this.replica.syncAgeSeconds;
  }

  get size(): number {
    return this.replica.records("vector").size;
  }

  get residentCount(): number {
    return this.resident.residentCount;
  }

  get residentBytes(): number {
    return this.resident.residentBytes;
  }

  /** For what can be told before any work is done. Throws InvalidArgumentError. */
  checkNew(id: string, labels: Record<string, string>): void {
    checkVectorId(id, "vector_id");
    checkLabels(labels, this.limits, "labels");
  }

  /**
   * Field paths are those of CreateVectorRequest. The same id, content and labels again return the
   * record that is there. Throws InvalidArgumentError, AlreadyExistsError, UnavailableError.
   */
  async create(request: CreateVector): Promise<VectorRecord> {
    const { id, labels, derivation, meanResidualNorms = [] } = request;
    this.checkNew(id, labels);
    const content = packRows(request.rows, this.model, "rows");
    return this.replica.put({
      kind: "vector",
      id,
      content,
      labels,
      derivation,
      meanResidualNorms,
      probe: null,
      replaces: false,
    });
  }

  /** `reference` may be pinned. Throws InvalidArgumentError, NotFoundError. */
  get(reference: string, field = "vector_id"): VectorRecord {
    return this.replica.get("vector", reference, field);
  }

  /** Field paths are those of ListVectorsRequest. Throws InvalidArgumentError. */
  list(query: ListQuery): RecordPage {
    return listPage(this.replica.records("vector"), query);
  }

  /** Resolves to the revision that removed it. Throws NotFoundError, UnavailableError. */
  remove(reference: string): Promise<bigint> {
    return this.replica.remove("vector", reference, "vector_id");
  }

  /**
   * Pins what the id names now. Throws InvalidArgumentError when the vector does not fit the model,
   * NotFoundError, ResourceExhaustedError.
   */
  acquire(reference: string, field: string): PinnedVector {
    const record = this.get(reference, field);
    checkFits(record, this.model, field);
    return { ...this.resident.acquire(record.digest, record.content), vectorId: record.id };
  }

  /** Pins rows that came with a request; `field` is the path of the inline vector. */
  acquireInline(rows: readonly VectorRow[], field: string): PinnedVector {
    const content = packRows(rows, this.model, `${field}.rows`);
    return { ...this.resident.acquire(digestOf(content), content), vectorId: "" };
  }

  /** See Replica. */
  waitForRevision(revision: bigint | null, signal: AbortSignal): Promise<void> {
    return this.replica.waitForRevision(revision, signal);
  }

  close(): Promise<void> {
    return this.replica.close();
  }
}
