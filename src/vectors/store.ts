/**
 * Where vectors are kept. A store knows names, contents and the order of writes; the registry
 * answers all reads from its own memory and asks a store only for changes.
 */
import { AlreadyExistsError, NotFoundError } from "../errors.js";
import {
  type Derivation,
  type ProbeFacts,
  type RecordKind,
  statsOf,
  type VectorContent,
  type VectorRecord,
} from "./vector.js";

export interface NewVector {
  kind: RecordKind;
  id: string;
  content: VectorContent;
  labels: Record<string, string>;
  derivation: Derivation | null;
  /** One a layer, of the derivation set; empty: unknown. */
  meanResidualNorms: readonly number[];
  /** Null for a vector. */
  probe: ProbeFacts | null;
  /**
   * True: the id is there with this very content, and what is beside the content is replaced. False:
   * the id is new, or there already as it is here.
   */
  replaces: boolean;
}

/** The newest state of an id. */
export interface StoreChange {
  /** Every write takes the next one. */
  revision: bigint;
  kind: RecordKind;
  id: string;
  /** Null: the id was removed. */
  record: VectorRecord | null;
}

export interface VectorStore {
  /** Other processes write to it too, so reads from memory may lag behind. */
  readonly isShared: boolean;
  /**
   * Registers a vector or a probe, durably when it resolves. The same id with the same content and
   * labels again is a success that writes nothing. Throws AlreadyExistsError, UnavailableError;
   * NotFoundError when there is nothing to replace.
   */
  put(vector: NewVector): Promise<VectorRecord>;
  /**
   * Removes an id whose content is `digest`; resolves to the revision that did. Default kind:
   * vector. Throws NotFoundError when the id is gone or has other content, UnavailableError.
   */
  remove(id: string, digest: string, kind?: RecordKind): Promise<bigint>;
  /** The newest state of each id that was written after `revision`, by rising revision. */
  changesSince(revision: bigint): Promise<StoreChange[]>;
  /**
   * `listener` is called after writes, other replicas' too, with the newest revision. A hint: calls
   * may be lost or come twice. Returns what ends it.
   */
  subscribe(listener: (revision: bigint) => void): () => void;
  close(): Promise<void>;
}

/**
 * What a put does to an id that holds `existing`: "keep" when everything is there already. Throws
 * AlreadyExistsError, and NotFoundError when there is nothing to replace.
 */
export function decidePut(
  vector: NewVector,
  digest: string,
  existing: Pick<VectorRecord, "digest" | "labels"> | null,
): "write" | "keep" {
  if (vector.replaces) {
    if (existing?.digest !== digest) throw new NotFoundError(vector.kind, vector.id);
    return "write";
  }
  if (existing === null) return "write";
  if (isSameVector(existing, digest, vector)) return "keep";
  throw new AlreadyExistsError(vector.kind, vector.id);
}

function isSameVector(
  existing: Pick<VectorRecord, "digest" | "labels">,
  digest: string,
  vector: NewVector,
): boolean {
  const names = Object.keys(vector.labels);
  return (
    existing.digest === digest &&
    names.length === Object.keys(existing.labels).length &&
    names.every((name) => existing.labels[name] === vector.labels[name])
  );
}

/** The record that a put writes. */
export function newRecord(
  vector: NewVector,
  digest: string,
  revision: bigint,
  createTime: Date,
): VectorRecord {
  return {
    kind: vector.kind,
    id: vector.id,
    digest,
    hiddenSize: vector.content.hiddenSize,
    layers: [...vector.content.layers],
    stats: statsOf(vector.content, vector.meanResidualNorms),
    labels: { ...vector.labels },
    derivation: vector.derivation,
    probe: vector.probe,
    createTime,
    revision,
    content: vector.content,
  };
}
