/**
 * An append-only file of JSON lines that outlives a crash at any byte: whole lines are kept, a torn
 * last one is cut off. What `append` took is on the disk after at most `SYNC_INTERVAL_MS`.
 */
import { type FileHandle, open, readFile } from "node:fs/promises";

const SYNC_INTERVAL_MS = 500;
const NEWLINE = 0x0a;

export interface JournalContent<T> {
  records: T[];
  /** Bytes of the whole lines; what follows is torn. */
  validBytes: number;
}

/**
 * The whole lines of a journal; none when the file does not exist. Throws an Error that names the line
 * when one that others follow is no JSON object: that is no torn end but a damaged file.
 */
export async function readJournal<T>(file: string): Promise<JournalContent<T>> {
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return Buffer.alloc(0);
    throw error;
  });
  const records: T[] = [];
  let start = 0;
  for (;;) {
    const end = bytes.indexOf(NEWLINE, start);
    if (end < 0) return { records, validBytes: start };
    const record = parseLine<T>(bytes.toString("utf8", start, end));
    if (record === undefined) {
      if (end === bytes.length - 1) return { records, validBytes: start };
      throw new Error(`${file}:${records.length + 1}: damaged, and lines follow it`);
    }
    records.push(record);
    start = end + 1;
  }
}

function parseLine<T>(line: string): T | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as T) : undefined;
  } catch {
    return undefined;
  }
}

export class Journal<T> {
  readonly #file: FileHandle;
  #waiting: string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failure: unknown;

  private constructor(
    file: FileHandle,
    /** What the file held when it was opened. */
    readonly records: readonly T[],
  ) {
    this.#file = file;
  }

  /** Opens or makes the file, and cuts a torn last line off. */
  static async open<T>(path: string): Promise<Journal<T>> {
    const { records, validBytes } = await readJournal<T>(path);
    const file = await open(path, "a");
    try {
      await file.truncate(validBytes);
      await file.datasync();
    } catch (error) {
      await file.close();
      throw error;
    }
    return new Journal(file, records);
  }

  /** Takes a record; throws what an earlier write failed with. */
  append(record: T): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#waiting.push(`${JSON.stringify(record)}\n`);
    this.#timer ??= setTimeout(() => {
      this.flush().catch((error: unknown) => {
        this.#failure = error;
      });
    }, SYNC_INTERVAL_MS);
  }

  /** Resolves when all that was taken is on the disk. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(async () => {
      if (this.#waiting.length === 0) return;
      const lines = this.#waiting.join("");
      this.#waiting = [];
      await this.#file.appendFile(lines);
      await this.#file.datasync();
    });
    return this.#writing;
  }

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#file.close();
    }
  }
}
