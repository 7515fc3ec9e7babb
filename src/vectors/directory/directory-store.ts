/**
 * Vectors in a folder, without any service:
 *
 *   LOCK                                the one server that may write
 *   manifest.jsonl                      every write, in order; see manifest.ts
 *   blobs/<64 hex digits>.safetensors   rows, named by their digest
 *
 * A put writes its blob to a temporary file, syncs, renames, syncs the folder; only then it appends
 * its line and syncs. So a crash at any point leaves the registry before the write or after it.
 */
import path from "node:path";
import { StartupError, UnavailableError } from "../../errors.js";
import { reasonOf } from "../../model/json.js";
import { Catalog } from "../catalog.js";
import { digestOf } from "../digest.js";
import { type Entry, putEntry, recordOf } from "../entry.js";
import { decodeVector, encodeVector } from "../formats/safetensors.js";
import type { NewVector, StoreChange, VectorStore } from "../store.js";
import type { RecordKind, VectorContent, VectorRecord } from "../vector.js";
import { diskFiles, type Files } from "./files.js";
import { FolderLock } from "./lock.js";
import { encodeEntry, FIRST_LINE, parseManifest } from "./manifest.js";

/** What keeps a second server away; exchangeable for tests. */
export interface Lock {
  isHeld(): Promise<boolean>;
  release(): Promise<void>;
}

export interface DirectoryOptions {
  files: Files;
  takeLock(folder: string): Promise<Lock>;
  /** Told what a crash had left behind. */
  onWarning(text: string): void;
  now(): Date;
}

const MANIFEST_NAME = "manifest.jsonl";
const BLOB_FOLDER = "blobs";
const BLOB_NAME = /^[0-9a-f]{64}\.safetensors$/;
const TEMPORARY_NAME = /\.safetensors\.tmp$/;

export class DirectoryStore implements VectorStore {
  readonly isShared = false;
  private readonly catalog = new Catalog();
  private readonly manifest: string;
  private manifestBytes = 0;
  /** Writes go one after the other. */
  private lastWrite: Promise<unknown> = Promise.resolve();
  /** Set when the manifest could not be brought back to a known state. */
  private broken: string | null = null;
  private closed = false;

  private constructor(
    private readonly folder: string,
    private readonly lock: Lock,
    private readonly options: DirectoryOptions,
  ) {
    this.manifest = path.join(folder, MANIFEST_NAME);
  }

  /** Throws a StartupError when the folder is in use or damaged. */
  static async open(
    folder: string,
    options: Partial<DirectoryOptions> = {},
  ): Promise<DirectoryStore> {
    const complete: DirectoryOptions = {
      files: diskFiles,
      takeLock: (locked) => FolderLock.take(locked),
      onWarning: () => {},
      now: () => new Date(),
      ...options,
    };
    let lock: Lock | null = null;
    try {
      await complete.files.makeFolder(path.join(folder, BLOB_FOLDER));
      lock = await complete.takeLock(folder);
      const store = new DirectoryStore(folder, lock, complete);
      await store.load();
      return store;
    } catch (error) {
      await lock?.release();
      if (error instanceof StartupError) throw error;
      throw new StartupError(`${folder}: the registry cannot be opened: ${reasonOf(error)}`);
    }
  }

  put(vector: NewVector): Promise<VectorRecord> {
    return this.write(async () => {
      const { record, isNew } = this.catalog.planPut(vector, this.options.now());
      if (!isNew) return record;
      await this.writeBlob(record.digest, record.content);
      await this.append(putEntry(record, vector.meanResidualNorms), record.digest);
      this.catalog.apply({ revision: record.revision, kind: record.kind, id: record.id, record });
      this.catalog.notify();
      return record;
    });
  }

  /** The blob stays until the next start, when no one can be reading it. */
  remove(id: string, digest: string, kind: RecordKind = "vector"): Promise<bigint> {
    return this.write(async () => {
      const change = this.catalog.planRemove(kind, id, digest);
      await this.append({ op: "remove", revision: Number(change.revision), kind, id });
      this.catalog.apply(change);
      this.catalog.notify();
      return change.revision;
    });
  }

  async changesSince(revision: bigint): Promise<StoreChange[]> {
    return this.catalog.changesSince(revision);
  }

  subscribe(listener: (revision: bigint) => void): () => void {
    return this.catalog.subscribe(listener);
  }

  /** Waits for the write in progress. Idempotent. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.lastWrite.catch(() => {});
    await this.lock.release();
  }

  private write<T>(body: () => Promise<T>): Promise<T> {
    const next = this.lastWrite.catch(() => {}).then(body);
    this.lastWrite = next;
    return next;
  }

  private async writeBlob(digest: string, content: VectorContent): Promise<void> {
    const { files } = this.options;
    const blob = this.blobPath(digest);
    const temporary = `${blob}.tmp`;
    await this.attempt(async () => {
      try {
        await files.writeSynced(temporary, encodeVector(content, { digest }));
        await files.rename(temporary, blob);
        await files.syncFolder(path.dirname(blob));
      } catch (error) {
        await this.discard(temporary);
        throw error;
      }
    });
  }

  /** `digest`: the blob that the entry is about to name. */
  private async append(entry: Entry, digest: string | null = null): Promise<void> {
    const line = encodeEntry(entry);
    await this.attempt(async () => {
      try {
        await this.options.files.appendSynced(this.manifest, line);
      } catch (error) {
        await this.undoAppend();
        const isUnnamed = digest !== null && !this.catalog.liveDigests().has(digest);
        // A manifest that could not be brought back may name it.
        if (isUnnamed && this.broken === null) await this.discard(this.blobPath(digest));
        throw error;
      }
    });
    this.manifestBytes += line.byteLength;
  }

  /** Writes that a full disk refuses must not fill it further. What stays, the next start removes. */
  private async discard(file: string): Promise<void> {
    await this.options.files.remove(file).catch(() => {});
  }

  /** What a failed append left must go, or the next line would stand behind half of this one. */
  private async undoAppend(): Promise<void> {
    try {
      await this.options.files.truncateSynced(this.manifest, this.manifestBytes);
    } catch (error) {
      this.broken = reasonOf(error);
    }
  }

  private async attempt(body: () => Promise<void>): Promise<void> {
    try {
      if (this.closed) throw new Error("it is closed");
      if (this.broken !== null) throw new Error(`an earlier write failed: ${this.broken}`);
      if (!(await this.lock.isHeld())) throw new Error("another server has taken its lock");
      await body();
    } catch (error) {
      this.options.onWarning(`${this.folder}: the registry cannot be written: ${reasonOf(error)}`);
      throw new UnavailableError("the registry cannot be written", "REGISTRY_UNAVAILABLE");
    }
  }

  private async load(): Promise<void> {
    const { files, onWarning } = this.options;
    const bytes = (await files.read(this.manifest)) ?? (await this.create());
    const { entries, goodBytes } = this.inManifest(() => parseManifest(bytes));
    if (goodBytes < bytes.byteLength) {
      onWarning(
        `${this.manifest}: dropped ${bytes.byteLength - goodBytes} bytes of a write that a crash cut short`,
      );
      await files.truncateSynced(this.manifest, goodBytes);
    }
    this.manifestBytes = goodBytes;
    await this.applyEntries(entries);
    await this.removeLeftovers();
  }

  private async create(): Promise<Uint8Array> {
    const { files } = this.options;
    const blobs = await files.list(path.join(this.folder, BLOB_FOLDER));
    if (blobs.some((name) => BLOB_NAME.test(name))) {
      throw new StartupError(`${this.manifest}: is missing, but there are blobs beside it`);
    }
    const temporary = `${this.manifest}.tmp`;
    await files.writeSynced(temporary, FIRST_LINE);
    await files.rename(temporary, this.manifest);
    await files.syncFolder(this.folder);
    return FIRST_LINE;
  }

  private async applyEntries(entries: readonly Entry[]): Promise<void> {
    const keyOf = ({ kind, id }: Entry) => `${kind} ${id}`;
    const newest = new Map(entries.map((entry) => [keyOf(entry), entry.revision]));
    const contents = new Map<string, VectorContent>();
    for (const entry of entries) {
      const revision = BigInt(entry.revision);
      const { kind, id } = entry;
      // Blobs of what was removed or replaced may be gone.
      if (entry.op === "remove" || newest.get(keyOf(entry)) !== entry.revision) {
        this.catalog.apply({ revision, kind, id, record: null });
        continue;
      }
      const content = contents.get(entry.digest) ?? (await this.readBlob(entry.digest));
      contents.set(entry.digest, content);
      this.catalog.apply({ revision, kind, id, record: recordOf(entry, content) });
    }
  }

  private async readBlob(digest: string): Promise<VectorContent> {
    const blob = this.blobPath(digest);
    const bytes = await this.options.files.read(blob);
    if (bytes === null) throw new StartupError(`${blob}: is missing, but the manifest names it`);
    const content = this.inFile(blob, () => decodeVector(bytes).content);
    if (digestOf(content) !== digest) {
      throw new StartupError(`${blob}: damaged: its rows have digest ${digestOf(content)}`);
    }
    return content;
  }

  /** Temporary files of a crash, and blobs that no id names any more. */
  private async removeLeftovers(): Promise<void> {
    const live = new Set([...this.catalog.liveDigests()].map(blobName));
    const folder = path.join(this.folder, BLOB_FOLDER);
    for (const name of await this.options.files.list(folder)) {
      const isDead = TEMPORARY_NAME.test(name) || (BLOB_NAME.test(name) && !live.has(name));
      if (isDead) await this.options.files.remove(path.join(folder, name));
    }
  }

  private blobPath(digest: string): string {
    return path.join(this.folder, BLOB_FOLDER, blobName(digest));
  }

  private inManifest<T>(body: () => T): T {
    return this.inFile(this.manifest, body);
  }

  private inFile<T>(file: string, body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw new StartupError(`${file}: ${reasonOf(error)}`);
    }
  }
}

function blobName(digest: string): string {
  return `${digest.slice("sha256:".length)}.safetensors`;
}
