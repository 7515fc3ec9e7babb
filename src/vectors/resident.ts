/**
 * Contents on the engine, by digest: one handle however many ids, requests and inline vectors have
 * the same rows. Handles that no request holds stay until their room is needed, oldest use first.
 */
import { Code, ResourceExhaustedError } from "../errors.js";
import type { NativeVector } from "../native/binding.js";
import { digestBytes } from "./digest.js";
import { contentBytes, MIN_DIRECTION_NORM, statsOf, type VectorContent } from "./vector.js";

/** What the engine offers; see native/engine.ts. */
export interface VectorEngine {
  putVector(vector: NativeVector): void;
  dropVector(handle: number): void;
}

/** Rows that the engine holds until `release`. */
export interface ResidentPin {
  digest: string;
  handle: number;
  /** Ascending. */
  layers: readonly number[];
  /** Those whose row is zeros, which is no direction. */
  zeroLayers: readonly number[];
  /** Idempotent. */
  release(): void;
}

interface Entry {
  handle: number;
  bytes: number;
  layers: readonly number[];
  zeroLayers: readonly number[];
  pins: number;
}

/** How putting a vector on the engine ended: no room is for now only. */
export type VectorLoadResult = "ok" | "no_room" | "error";
export type OnVectorLoad = (result: VectorLoadResult, seconds: number) => void;

const RETRY_DELAY_MS = 1000;

export class ResidentVectors {
  /** Oldest use first. */
  private readonly entries = new Map<string, Entry>();
  private bytes = 0;
  private nextHandle = 1;

  constructor(
    private readonly engine: VectorEngine,
    private readonly maxBytes: number,
    private readonly onLoad: OnVectorLoad = () => {},
  ) {}

  get residentCount(): number {
    return this.entries.size;
  }

  get residentBytes(): number {
    return this.bytes;
  }

  /** `digest` is the content's. Throws ResourceExhaustedError. */
  acquire(digest: string, content: VectorContent): ResidentPin {
    const entry = this.entries.get(digest) ?? this.load(digest, content);
    this.entries.delete(digest);
    this.entries.set(digest, entry);
    entry.pins += 1;
    let held = true;
    return {
      digest,
      handle: entry.handle,
      layers: entry.layers,
      zeroLayers: entry.zeroLayers,
      release: () => {
        if (held) entry.pins -= 1;
        held = false;
      },
    };
  }

  private load(digest: string, content: VectorContent): Entry {
    const startMs = performance.now();
    let result: VectorLoadResult = "error";
    try {
      const entry = this.put(digest, content);
      result = "ok";
      return entry;
    } catch (error) {
      if (error instanceof ResourceExhaustedError) result = "no_room";
      throw error;
    } finally {
      this.onLoad(result, (performance.now() - startMs) / 1e3);
    }
  }

  private put(digest: string, content: VectorContent): Entry {
    const bytes = contentBytes(content);
    this.makeRoom(bytes);
    const handle = this.nextHandle;
    try {
      this.engine.putVector({
        handle,
        digest: digestBytes(digest),
        layers: content.layers,
        rows: content.rows,
      });
    } catch (error) {
      if (codeOf(error) === Code.RESOURCE_EXHAUSTED) throw this.full();
      throw error;
    }
    this.nextHandle += 1;
    this.bytes += bytes;
    const zeroLayers = statsOf(content)
      .filter(({ l2Norm }) => l2Norm < MIN_DIRECTION_NORM)
      .map(({ layer }) => layer);
    return { handle, bytes, layers: [...content.layers], zeroLayers, pins: 0 };
  }

  private makeRoom(bytes: number): void {
    for (const [digest, entry] of this.entries) {
      if (this.bytes + bytes <= this.maxBytes) return;
      if (entry.pins > 0) continue;
      this.engine.dropVector(entry.handle);
      this.entries.delete(digest);
      this.bytes -= entry.bytes;
    }
    if (this.bytes + bytes > this.maxBytes) throw this.full();
  }

  private full(): ResourceExhaustedError {
    return new ResourceExhaustedError(
      "the vectors of running requests fill the memory set aside for them",
      "RESIDENT_VECTORS",
      RETRY_DELAY_MS,
    );
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : null;
}
