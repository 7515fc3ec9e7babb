/** A value made from files, made again when they change; what cannot be read leaves the old one. */
import { readFileSync } from "node:fs";
import { StartupError } from "../../errors.js";
import { reasonOf } from "../../model/json.js";

export interface WatchOptions<T> {
  files: readonly string[];
  /** Makes the value of the files' contents, in their order. Throws when they are no good. */
  parse(contents: readonly Buffer[]): T;
  intervalMs: number;
  /** Told when a change was taken, and why one was not. */
  onReload(error: string | null): void;
}

export class WatchedFiles<T> {
  private readonly listeners = new Set<(value: T) => void>();
  private readonly timer: NodeJS.Timeout;
  private lastFailure: string | null = null;

  private constructor(
    private readonly options: WatchOptions<T>,
    private contents: readonly Buffer[],
    private value: T,
  ) {
    // Looking at the bytes serves every way of replacing a file, symbolic links of Kubernetes too.
    this.timer = setInterval(() => this.look(), options.intervalMs);
    this.timer.unref();
  }

  /** Throws a StartupError that names what cannot be used. */
  static open<T>(options: WatchOptions<T>): WatchedFiles<T> {
    const contents = options.files.map(readNamed);
    try {
      return new WatchedFiles(options, contents, options.parse(contents));
    } catch (error) {
      if (error instanceof StartupError) throw error;
      throw new StartupError(`${options.files.join(", ")}: ${reasonOf(error)}`);
    }
  }

  get current(): T {
    return this.value;
  }

  subscribe(listener: (value: T) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close(): void {
    clearInterval(this.timer);
  }

  private look(): void {
    try {
      const contents = this.options.files.map(readNamed);
      if (contents.every((bytes, index) => bytes.equals(this.contents[index] ?? Buffer.alloc(0)))) {
        this.lastFailure = null;
        return;
      }
      // A certificate without its new key yet: the next look finds both.
      this.value = this.options.parse(contents);
      this.contents = contents;
    } catch (error) {
      const reason = reasonOf(error);
      if (reason !== this.lastFailure) this.options.onReload(reason);
      this.lastFailure = reason;
      return;
    }
    this.lastFailure = null;
    for (const listener of this.listeners) listener(this.value);
    this.options.onReload(null);
  }
}

function readNamed(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new StartupError(`${file}: ${reasonOf(error)}`);
  }
}
