/**
 * Adapters on the engine, by id. A request pins the one that it began with: a removed adapter
 * leaves the engine when the last pin is released.
 */
import {
  AlreadyExistsError,
  Code,
  invalid,
  NotFoundError,
  ResourceExhaustedError,
  StartupError,
} from "../errors.js";
import type { NativeAdapter, NativeLlamaConfig, NativeLoraModule } from "../native/binding.js";
import { openAdapter } from "./adapter.js";

/** What the engine offers; see native/engine.ts. */
export interface AdapterEngine {
  putAdapter(adapter: NativeAdapter): void;
  dropAdapter(handle: number): void;
}

export interface AdapterInfo {
  id: string;
  /** "sha256:…" */
  digest: string;
  /** The largest of its ranks. */
  rank: number;
  modules: readonly NativeLoraModule[];
  sizeBytes: number;
}

/** An adapter that stays on the engine until `release`, whatever happens to its id. */
export interface PinnedAdapter {
  /** Empty for the base model. */
  adapterId: string;
  /** Empty for the base model. */
  digest: string;
  /** 0 for the base model. */
  handle: number;
  /** Idempotent. */
  release(): void;
}

interface Entry {
  info: AdapterInfo;
  handle: number;
  pins: number;
  removed: boolean;
}

const ID = /^[a-z0-9][a-z0-9._-]{0,62}$/;
const BASE: PinnedAdapter = { adapterId: "", digest: "", handle: 0, release: () => {} };

export class AdapterRegistry {
  private readonly entries = new Map<string, Entry>();
  /** One load at a time: ids and room are checked against what is there. */
  private lastLoad: Promise<unknown> = Promise.resolve();
  private nextHandle = 1;

  constructor(
    private readonly engine: AdapterEngine,
    private readonly model: NativeLlamaConfig,
  ) {}

  get size(): number {
    return this.entries.size;
  }

  /**
   * Reads a PEFT folder and puts it on the engine, which must be ready. The same content again is a
   * success. Throws InvalidArgumentError for the id, AlreadyExistsError, StartupError when the
   * folder is not an adapter of this model, ResourceExhaustedError.
   */
  load(id: string, folder: string, field = "adapter_id"): Promise<AdapterInfo> {
    const next = this.lastLoad.then(() => this.loadNow(id, folder, field));
    this.lastLoad = next.catch(() => {});
    return next;
  }

  /** Pins what the id names now; the empty id is the base model. Throws NotFoundError. */
  acquire(id: string, field = "adapter_id"): PinnedAdapter {
    if (id === "") return BASE;
    const entry = this.find(id, field);
    entry.pins += 1;
    let held = true;
    return {
      adapterId: id,
      digest: entry.info.digest,
      handle: entry.handle,
      release: () => {
        if (!held) return;
        held = false;
        entry.pins -= 1;
        this.dropUnused(entry);
      },
    };
  }

  /** New requests do not find it any more; those that pinned it go on. Throws NotFoundError. */
  remove(id: string, field = "adapter_id"): AdapterInfo {
    const entry = this.find(id, field);
    this.entries.delete(id);
    entry.removed = true;
    this.dropUnused(entry);
    return entry.info;
  }

  /** By id. */
  list(): AdapterInfo[] {
    return [...this.entries.values()]
      .map(({ info }) => info)
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  private find(id: string, field: string): Entry {
    checkAdapterId(id, field);
    const entry = this.entries.get(id);
    if (!entry) throw new NotFoundError("adapter", id);
    return entry;
  }

  private dropUnused(entry: Entry): void {
    if (entry.removed && entry.pins === 0) this.engine.dropAdapter(entry.handle);
  }

  private async loadNow(id: string, folder: string, field: string): Promise<AdapterInfo> {
    checkAdapterId(id, field);
    const { digest, rank, modules, sizeBytes, native } = await openAdapter(folder, this.model);
    const known = this.entries.get(id);
    if (known) {
      if (known.info.digest === digest) return known.info;
      throw new AlreadyExistsError("adapter", id);
    }
    const handle = this.nextHandle;
    this.put(folder, { handle, ...native });
    this.nextHandle += 1;
    const info = { id, digest, rank, modules, sizeBytes };
    this.entries.set(id, { info, handle, pins: 0, removed: false });
    return info;
  }

  private put(folder: string, adapter: NativeAdapter): void {
    try {
      this.engine.putAdapter(adapter);
    } catch (error) {
      const code: unknown = error instanceof Error && "code" in error ? error.code : null;
      if (!(error instanceof Error)) throw error;
      if (code === Code.RESOURCE_EXHAUSTED) {
        throw new ResourceExhaustedError(error.message, "RESIDENT_ADAPTERS", null);
      }
      if (code === Code.INVALID_ARGUMENT) throw new StartupError(`${folder}: ${error.message}`);
      throw error;
    }
  }
}

/** Throws InvalidArgumentError. */
export function checkAdapterId(id: string, field: string): void {
  if (!ID.test(id)) throw invalid(field, `"${id}" is not an id: it must match ${ID.source}`);
}
