/**
 * The few file operations that the directory store is made of. "Synced" means that the bytes are on
 * the disk when it resolves; a name is there for good only after `syncFolder` of its folder.
 */
import { constants } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";

export interface Files {
  /** With its parents; an existing folder is fine. */
  makeFolder(folder: string): Promise<void>;
  /** Names, in no order. */
  list(folder: string): Promise<string[]>;
  /** Null when there is no such file. */
  read(file: string): Promise<Uint8Array | null>;
  /** Creates a file; one that exists is replaced. */
  writeSynced(file: string, bytes: Uint8Array): Promise<void>;
  appendSynced(file: string, bytes: Uint8Array): Promise<void>;
  truncateSynced(file: string, sizeBytes: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(file: string): Promise<void>;
  syncFolder(folder: string): Promise<void>;
}

export const diskFiles: Files = {
  async makeFolder(folder) {
    const created = await mkdir(folder, { recursive: true });
    if (created !== undefined) await this.syncFolder(path.dirname(created));
  },
  list: (folder) => readdir(folder),
  async read(file) {
    try {
      return await readFile(file);
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  },
  writeSynced: (file, bytes) => writeAndSync(file, "w", bytes),
  appendSynced: (file, bytes) =>
    // Not "a": that would create a manifest without its first line.
    writeAndSync(file, constants.O_WRONLY | constants.O_APPEND, bytes),
  async truncateSynced(file, sizeBytes) {
    await using handle = await open(file, "r+");
    await handle.truncate(sizeBytes);
    await handle.sync();
  },
  rename,
  remove: (file) => rm(file),
  async syncFolder(folder) {
    await using handle = await open(folder, "r");
    await handle.sync();
  },
};

async function writeAndSync(
  file: string,
  flags: string | number,
  bytes: Uint8Array,
): Promise<void> {
  await using handle = await open(file, flags, 0o640);
  await handle.writeFile(bytes);
  await handle.sync();
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
