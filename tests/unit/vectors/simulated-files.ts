/**
 * A disk that can lose power. What was written lives in a cache until it is synced; names live there
 * until their folder is synced. `crash` keeps what is on the disk and, of the cache, what chance
 * would have written back: any part of the pending names, any prefix of the pending bytes.
 */
import path from "node:path";
import type { Files } from "../../../src/vectors/directory/files.js";

/** Thrown by every operation from the crash on. */
export class PowerLoss extends Error {}

interface SimulatedFile {
  cached: Buffer;
  synced: Buffer;
}

interface PendingName {
  folder: string;
  apply(names: Map<string, SimulatedFile>): void;
}

/** A small generator of numbers from 0 to 1, the same ones for a seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class SimulatedDisk implements Files {
  private cachedNames = new Map<string, SimulatedFile>();
  private syncedNames = new Map<string, SimulatedFile>();
  private pending: PendingName[] = [];
  private stepsLeft = Number.POSITIVE_INFINITY;
  private failure: { operation: keyof Files; afterSteps: number } | null = null;
  /** Steps carried out since the start. */
  steps = 0;

  /** The power goes before step `steps` from now (0: at the next one). */
  losePowerAfter(steps: number): void {
    this.stepsLeft = steps;
  }

  /** An operation of this name fails once, after so many of its steps. */
  failOnce(operation: keyof Files, afterSteps: number): void {
    this.failure = { operation, afterSteps };
  }

  /** The machine starts again. */
  crash(random: () => number): void {
    const files = new Set([...this.cachedNames.values(), ...this.syncedNames.values()]);
    for (const file of files) {
      file.synced = survivor(file, random);
      file.cached = file.synced;
    }
    // A journal keeps the order of names: a prefix of the pending ones survives.
    const kept = Math.floor(random() * (this.pending.length + 1));
    for (const name of this.pending.slice(0, kept)) name.apply(this.syncedNames);
    this.pending = [];
    this.cachedNames = new Map(this.syncedNames);
    this.stepsLeft = Number.POSITIVE_INFINITY;
  }

  async makeFolder(): Promise<void> {
    this.step("makeFolder");
  }

  async list(folder: string): Promise<string[]> {
    this.step("list");
    const files = [...this.cachedNames.keys()];
    return files.filter((file) => path.dirname(file) === folder).map((file) => path.basename(file));
  }

  async read(file: string): Promise<Uint8Array | null> {
    this.step("read");
    const found = this.cachedNames.get(file);
    return found ? Buffer.from(found.cached) : null;
  }

  async writeSynced(file: string, bytes: Uint8Array): Promise<void> {
    this.step("writeSynced");
    const created: SimulatedFile = { cached: Buffer.alloc(0), synced: Buffer.alloc(0) };
    this.name(path.dirname(file), (names) => names.set(file, created));
    created.cached = Buffer.from(bytes);
    this.step("writeSynced");
    created.synced = created.cached;
  }

  async appendSynced(file: string, bytes: Uint8Array): Promise<void> {
    this.step("appendSynced");
    const found = this.existing(file);
    found.cached = Buffer.concat([found.cached, bytes]);
    this.step("appendSynced");
    found.synced = found.cached;
  }

  async truncateSynced(file: string, sizeBytes: number): Promise<void> {
    this.step("truncateSynced");
    const found = this.existing(file);
    found.cached = found.cached.subarray(0, sizeBytes);
    this.step("truncateSynced");
    found.synced = found.cached;
  }

  async rename(from: string, to: string): Promise<void> {
    this.step("rename");
    const found = this.existing(from);
    this.name(path.dirname(to), (names) => {
      names.delete(from);
      names.set(to, found);
    });
  }

  async remove(file: string): Promise<void> {
    this.step("remove");
    this.existing(file);
    this.name(path.dirname(file), (names) => names.delete(file));
  }

  async syncFolder(folder: string): Promise<void> {
    this.step("syncFolder");
    for (const name of this.pending) if (name.folder === folder) name.apply(this.syncedNames);
    this.pending = this.pending.filter((name) => name.folder !== folder);
  }

  private name(folder: string, apply: (names: Map<string, SimulatedFile>) => void): void {
    apply(this.cachedNames);
    this.pending.push({ folder, apply });
  }

  private existing(file: string): SimulatedFile {
    const found = this.cachedNames.get(file);
    if (!found) throw new Error(`ENOENT: ${file}`);
    return found;
  }

  private step(operation: string): void {
    if (this.stepsLeft <= 0) throw new PowerLoss();
    this.stepsLeft -= 1;
    this.steps += 1;
    if (this.failure?.operation !== operation) return;
    if (this.failure.afterSteps > 0) {
      this.failure.afterSteps -= 1;
      return;
    }
    this.failure = null;
    throw new Error(`EIO: ${operation}`);
  }
}

/** Bytes that a file has after a crash: a prefix of what was appended, at times with zeros behind. */
function survivor(file: SimulatedFile, random: () => number): Buffer {
  if (file.cached === file.synced) return file.synced;
  if (file.cached.length < file.synced.length) return random() < 0.5 ? file.cached : file.synced;
  const extra = file.cached.length - file.synced.length;
  const written = Math.floor(random() * (extra + 1));
  const prefix = file.cached.subarray(0, file.synced.length + written);
  return random() < 0.3 ? Buffer.concat([prefix, Buffer.alloc(extra - written)]) : prefix;
}
