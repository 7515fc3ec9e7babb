/** A server whose registry lies on a disk that can be filled, and emptied again. */
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, truncateSync, writeSync } from "node:fs";
import path from "node:path";
import { type LiveServer, launchLiveServer } from "./live-server.js";
import { TemporaryFolder } from "./tiny-checkpoint.js";

export interface FullDisk {
  server: LiveServer;
  /** The registry, as this process can reach it. */
  registry: string;
  /** Nothing more fits, or only so many bytes. */
  fill(freeBytes?: number): void;
  free(): void;
  stop(): Promise<void>;
}

const TMPFS_BYTES = 512 * 1024;
const PAGE_BYTES = 4096;
/** A mount that only the server sees: no right of root is needed, and it ends with the server. */
const MOUNT = `mount -t tmpfs -o size=${TMPFS_BYTES} none "$0" && exec "$@"`;
const NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT];

/** Whether this system lets a user mount a file system for a process of its own. */
export function mountsArePossible(): boolean {
  const folder = new TemporaryFolder();
  const [program = "", ...args] = [...NAMESPACE, folder.path, "true"];
  const { status } = spawnSync(program, args, { stdio: "ignore" });
  folder.remove();
  return status === 0;
}

/** A file system in memory of 512 KiB. */
export async function smallFileSystem(): Promise<FullDisk> {
  const folder = new TemporaryFolder();
  const registry = folder.join("registry");
  const server = await launchLiveServer([...NAMESPACE, folder.path], "--registry", registry);
  const seen = (file: string) => path.join(`/proc/${server.process.pid}/root`, file);
  const filler = seen(folder.join("filler"));
  return {
    server,
    registry: seen(registry),
    fill: (freeBytes = 0) => fillUp(filler, freeBytes),
    free: () => rmSync(filler),
    stop: async () => {
      await server.stop();
      folder.remove();
    },
  };
}

/** A limit on the size of files: writes fail as they do on a full disk, with EFBIG for ENOSPC. */
export async function smallFiles(): Promise<FullDisk> {
  const folder = new TemporaryFolder();
  const registry = folder.join("registry");
  mkdirSync(registry);
  const server = await launchLiveServer([], "--registry", registry);
  const limit = (soft: string) =>
    execFileSync("prlimit", ["--pid", String(server.process.pid), `--fsize=${soft}:`]);
  return {
    server,
    registry,
    fill: (freeBytes = 0) => limit(String(freeBytes)),
    free: () => limit("unlimited"),
    stop: async () => {
      await server.stop();
      folder.remove();
    },
  };
}

/** Writes pages until none is left, then gives some back. */
function fillUp(file: string, freeBytes: number): void {
  const handle = openSync(file, "w");
  const page = Buffer.alloc(PAGE_BYTES, 1);
  let bytes = 0;
  try {
    for (;;) bytes += writeSync(handle, page);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
  } finally {
    closeSync(handle);
  }
  truncateSync(file, bytes - freeBytes);
}
