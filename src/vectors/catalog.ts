/** Names and their order of writing, in memory: what the stores of this process share. */
import { NotFoundError } from "../errors.js";
import { digestOf } from "./digest.js";
import { decidePut, type NewVector, newRecord, type StoreChange } from "./store.js";
import type { RecordKind, VectorRecord } from "./vector.js";

/** A put that is decided but not written yet. */
export interface PlannedPut {
  record: VectorRecord;
  /** False: the store holds it already. */
  isNew: boolean;
}

export class Catalog {
  /** The newest change of each kind and id; tombstones stay, so that `changesSince` can tell them. */
  private readonly newest = new Map<string, StoreChange>();
  private readonly listeners = new Set<(revision: bigint) => void>();
  private lastRevision = 0n;

  get revision(): bigint {
    return this.lastRevision;
  }

  /** Checks a put against what is there and gives it its revision. Throws AlreadyExistsError. */
  planPut(vector: NewVector, now: Date): PlannedPut {
    const digest = digestOf(vector.content);
    const existing = this.newest.get(keyOf(vector))?.record ?? null;
    if (decidePut(vector, digest, existing) === "keep" && existing !== null) {
      return { record: existing, isNew: false };
    }
    const record = newRecord(vector, digest, this.lastRevision + 1n, now);
    return { record, isNew: true };
  }

  /** Throws NotFoundError when the id is gone or has other content. */
  planRemove(kind: RecordKind, id: string, digest: string): StoreChange {
    const record = this.newest.get(keyOf({ kind, id }))?.record;
    if (record?.digest !== digest) throw new NotFoundError(kind, id);
    return { revision: this.lastRevision + 1n, kind, id, record: null };
  }

  apply(change: StoreChange): void {
    this.newest.set(keyOf(change), change);
    this.lastRevision = change.revision;
  }

  changesSince(revision: bigint): StoreChange[] {
    return [...this.newest.values()]
      .filter((change) => change.revision > revision)
      .sort((a, b) => Number(a.revision - b.revision));
  }

  /** Digests that some id names. */
  liveDigests(): Set<string> {
    const records = [...this.newest.values()].map(({ record }) => record);
    return new Set(records.filter((record) => record !== null).map(({ digest }) => digest));
  }

  subscribe(listener: (revision: bigint) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  notify(): void {
    for (const listener of this.listeners) listener(this.lastRevision);
  }
}

function keyOf({ kind, id }: { kind: RecordKind; id: string }): string {
  return `${kind} ${id}`;
}
