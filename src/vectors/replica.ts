/**
 * The records of a store in memory: every read is answered from here, every write goes through the
 * store and shows here before it is acknowledged.
 */
import {
  DeadlineExceededError,
  NotFoundError,
  ResourceExhaustedError,
  ServiceError,
} from "../errors.js";
import { parseReference } from "./reference.js";
import type { NewVector, StoreChange, VectorStore } from "./store.js";
import { contentBytes, type RecordKind, type VectorRecord } from "./vector.js";

interface Waiter {
  revision: bigint;
  resolve(): void;
}

export class Replica {
  private readonly byKind = {
    vector: new Map<string, VectorRecord>(),
    probe: new Map<string, VectorRecord>(),
  };
  private readonly waiters = new Set<Waiter>();
  private readonly unsubscribe: () => void;
  private seenRevision = 0n;
  /** Rows of all records. */
  private bytes = 0;
  private lastSync: Promise<void> = Promise.resolve();
  private syncedAtMs = performance.now();

  private constructor(
    private readonly store: VectorStore,
    private readonly maxRegistryBytes: number,
  ) {
    // A hint that fails is not lost: the next one, or the next write, asks again.
    this.unsubscribe = store.subscribe(() => void this.sync().catch(() => {}));
  }

  /** Takes over the store: `close` closes it. */
  static async open(store: VectorStore, maxRegistryBytes: number): Promise<Replica> {
    const replica = new Replica(store, maxRegistryBytes);
    await replica.sync();
    return replica;
  }

  /** The newest revision that reads show. */
  get revision(): bigint {
    return this.seenRevision;
  }

  /** Since a shared store was last asked for changes with success; 0 for one of this process alone. */
  get syncAgeSeconds(): number {
    if (!this.store.isShared) return 0;
    return (performance.now() - this.syncedAtMs) / 1000;
  }

  /** By id. */
  records(kind: RecordKind): ReadonlyMap<string, VectorRecord> {
    return this.byKind[kind];
  }

  /**
   * `reference` may be pinned; `field` is its path in the request. Throws InvalidArgumentError,
   * NotFoundError.
   */
  get(kind: RecordKind, reference: string, field: string): VectorRecord {
    const { id, digestPrefix } = parseReference(reference, field, kind);
    const record = this.byKind[kind].get(id);
    if (!record?.digest.startsWith(digestPrefix ?? "")) throw new NotFoundError(kind, reference);
    return record;
  }

  /** Throws ResourceExhaustedError and what VectorStore.put throws. */
  async put(vector: NewVector): Promise<VectorRecord> {
    this.checkRoom(vector.kind, vector.id, contentBytes(vector.content));
    const record = await this.store.put(vector);
    await this.sync();
    return record;
  }

  /** Resolves to the revision that removed it. Throws NotFoundError, UnavailableError. */
  async remove(kind: RecordKind, reference: string, field: string): Promise<bigint> {
    const { id, digest } = this.get(kind, reference, field);
    const revision = await this.store.remove(id, digest, kind);
    await this.sync();
    return revision;
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
    this.syncedAtMs = performance.now();
    for (const waiter of this.waiters) {
      if (waiter.revision > this.seenRevision) continue;
      this.waiters.delete(waiter);
      waiter.resolve();
    }
  }

  private apply({ kind, id, record }: StoreChange): void {
    const records = this.byKind[kind];
    const before = records.get(id);
    if (before) this.bytes -= contentBytes(before.content);
    if (record === null) {
      records.delete(id);
    } else {
      records.set(id, record);
      this.bytes += contentBytes(record.content);
    }
  }

  /** An id that exists writes no rows, whatever the outcome. */
  private checkRoom(kind: RecordKind, id: string, bytes: number): void {
    if (this.byKind[kind].has(id) || this.bytes + bytes <= this.maxRegistryBytes) return;
    throw new ResourceExhaustedError(
      `the registry holds ${this.bytes} bytes of vectors; with these ${bytes} it would pass its limit of ${this.maxRegistryBytes}`,
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
