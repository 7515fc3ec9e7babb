/**
 * The registry as the service sees it: every read is answered from memory, every write goes through
 * the store, and a request pins the content it began with.
 */
import {
  DeadlineExceededError,
  invalid,
  NotFoundError,
  ResourceExhaustedError,
  ServiceError,
} from "../errors.js";
import { digestOf } from "./digest.js";
import { type ListQuery, listPage, type VectorPage } from "./list.js";
import { parseReference } from "./reference.js";
import { type ResidentPin, ResidentVectors, type VectorEngine } from "./resident.js";
import type { StoreChange, VectorStore } from "./store.js";
import {
  checkLabels,
  checkVectorId,
  contentBytes,
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
  /** Rows of all registered vectors, bytes. */
  maxRegistryBytes: number;
}

export interface CreateVector {
  id: string;
  rows: readonly VectorRow[];
  labels: Record<string, string>;
  derivation: Derivation | null;
}

/** A vector that stays on the engine until `release`, whatever happens to its id. */
export interface PinnedVector extends ResidentPin {
  /** Empty for an inline vector. */
  vectorId: string;
}

interface Waiter {
  revision: bigint;
  resolve(): void;
}

export class VectorRegistry {
  private readonly records = new Map<string, VectorRecord>();
  private readonly waiters = new Set<Waiter>();
  private readonly resident: ResidentVectors;
  private readonly unsubscribe: () => void;
  private seenRevision = 0n;
  /** Rows of all records. */
  private bytes = 0;
  private lastSync: Promise<void> = Promise.resolve();

  private constructor(
    private readonly store: VectorStore,
    engine: VectorEngine,
    private readonly model: ModelShape,
    private readonly limits: RegistryLimits,
  ) {
    this.resident = new ResidentVectors(engine, limits.maxResidentBytes);
    // A hint that fails is not lost: the next one, or the next write, asks again.
    this.unsubscribe = store.subscribe(() => void this.sync().catch(() => {}));
  }

  /** Takes over the store: `close` closes it. */
  static async open(
    store: VectorStore,
    engine: VectorEngine,
    model: ModelShape,
    limits: RegistryLimits,
  ): Promise<VectorRegistry> {
    const registry = new VectorRegistry(store, engine, model, limits);
    await registry.sync();
    return registry;
  }

  /** The newest revision that reads show. */
  get revision(): bigint {
    return this.seenRevision;
  }

  get size(): number {
    return this.records.size;
  }

  get residentCount(): number {
    return this.resident.residentCount;
  }

  get residentBytes(): number {
    return this.resident.residentBytes;
  }

  /**
   * Field paths are those of CreateVectorRequest. The same id, content and labels again return the
   * record that is there. Throws InvalidArgumentError, AlreadyExistsError, UnavailableError.
   */
  async create(request: CreateVector): Promise<VectorRecord> {
    checkVectorId(request.id, "vector_id");
    checkLabels(request.labels, this.limits, "labels");
    const content = packRows(request.rows, this.model, "rows");
    this.checkRoom(request.id, contentBytes(content));
    const { id, labels, derivation } = request;
    const record = await this.store.put({ id, content, labels, derivation });
    await this.sync();
    return record;
  }

  /** `reference` may be pinned. Throws InvalidArgumentError, NotFoundError. */
  get(reference: string, field = "vector_id"): VectorRecord {
    const { id, digestPrefix } = parseReference(reference, field);
    const record = this.records.get(id);
    if (!record?.digest.startsWith(digestPrefix ?? "")) {
      throw new NotFoundError("vector", reference);
    }
    return record;
  }

  /** Field paths are those of ListVectorsRequest. Throws InvalidArgumentError. */
  list(query: ListQuery): VectorPage {
    return listPage(this.records, query);
  }

  /** Resolves to the revision that removed it. Throws NotFoundError, UnavailableError. */
  async remove(reference: string): Promise<bigint> {
    const { id, digest } = this.get(reference);
    const revision = await this.store.remove(id, digest);
    await this.sync();
    return revision;
  }

  /**
   * Pins what the id names now. Throws InvalidArgumentError when the vector does not fit the model,
   * NotFoundError, ResourceExhaustedError.
   */
  acquire(reference: string, field: string): PinnedVector {
    const record = this.get(reference, field);
    this.checkFits(record, field);
    return { ...this.resident.acquire(record.digest, record.content), vectorId: record.id };
  }

  /** Pins rows that came with a request; `field` is the path of the inline vector. */
  acquireInline(rows: readonly VectorRow[], field: string): PinnedVector {
    const content = packRows(rows, this.model, `${field}.rows`);
    return { ...this.resident.acquire(digestOf(content), content), vectorId: "" };
  }

  /**
   * Resolves once reads show `revision` (null: at once). Rejects when `signal` fires first, with its
   * reason if that is a ServiceError, else with DeadlineExceededError.
   */
  async waitForRevision(revision: bigint | null, signal: AbortSignal): Promise<void> {
    if (revision === null || revision <= this.seenRevision) return;
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.waiters.delete(waiter);
        reject(abortError(signal, revision));
      };
      const waiter: Waiter = {
        revision,
        resolve: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.waiters.add(waiter);
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) onAbort();
    });
  }

  async close(): Promise<void> {
    this.unsubscribe();
    await this.lastSync.catch(() => {});
    await this.store.close();
  }

  /** A registry may be shared by servers of several models. */
  private checkFits(record: VectorRecord, field: string): void {
    if (record.hiddenSize !== this.model.hiddenSize) {
      throw invalid(
        field,
        `"${record.id}" has rows of ${record.hiddenSize} values; the model's hidden size is ${this.model.hiddenSize}`,
      );
    }
    const outside = record.layers.find((layer) => layer >= this.model.layers);
    if (outside !== undefined) {
      throw invalid(
        field,
        `"${record.id}" holds layer ${outside}; the model's last layer is ${this.model.layers - 1}`,
      );
    }
  }

  /** One at a time, so that changes are applied in order. */
  private sync(): Promise<void> {
    const next = this.lastSync.catch(() => {}).then(() => this.applyChanges());
    this.lastSync = next;
    return next;
  }

  private async applyChanges(): Promise<void> {
    for (const change of await this.store.changesSince(this.seenRevision)) {
      this.apply(change);
      this.seenRevision = change.revision;
    }
    for (const waiter of this.waiters) {
      if (waiter.revision > this.seenRevision) continue;
      this.waiters.delete(waiter);
      waiter.resolve();
    }
  }

  private apply({ id, record }: StoreChange): void {
    const before = this.records.get(id);
    if (before) this.bytes -= contentBytes(before.content);
    if (record === null) {
      this.records.delete(id);
    } else {
      this.records.set(id, record);
      this.bytes += contentBytes(record.content);
    }
  }

  /** An id that exists writes nothing, whatever the outcome. */
  private checkRoom(id: string, bytes: number): void {
    if (this.records.has(id) || this.bytes + bytes <= this.limits.maxRegistryBytes) return;
    throw new ResourceExhaustedError(
      `the registry holds ${this.bytes} bytes of vectors; with these ${bytes} it would pass its limit of ${this.limits.maxRegistryBytes}`,
      "REGISTRY_FULL",
      null,
    );
  }
}

function abortError(signal: AbortSignal, revision: bigint): ServiceError {
  const reason: unknown = signal.reason;
  if (reason instanceof ServiceError) return reason;
  return new DeadlineExceededError(`the registry did not reach revision ${revision} in time`);
}
