/** A store that forgets everything when the process ends: for servers without --registry. */
import { Catalog } from "./catalog.js";
import type { NewVector, StoreChange, VectorStore } from "./store.js";
import type { RecordKind, VectorRecord } from "./vector.js";

export class MemoryStore implements VectorStore {
  readonly isShared = false;
  private readonly catalog = new Catalog();

  constructor(private readonly now: () => Date = () => new Date()) {}

  async put(vector: NewVector): Promise<VectorRecord> {
    const { record, isNew } = this.catalog.planPut(vector, this.now());
    if (isNew) {
      this.catalog.apply({ revision: record.revision, kind: record.kind, id: record.id, record });
      this.catalog.notify();
    }
    return record;
  }

  async remove(id: string, digest: string, kind: RecordKind = "vector"): Promise<bigint> {
    const change = this.catalog.planRemove(kind, id, digest);
    this.catalog.apply(change);
    this.catalog.notify();
    return change.revision;
  }

  async changesSince(revision: bigint): Promise<StoreChange[]> {
    return this.catalog.changesSince(revision);
  }

  subscribe(listener: (revision: bigint) => void): () => void {
    return this.catalog.subscribe(listener);
  }

  async close(): Promise<void> {}
}
