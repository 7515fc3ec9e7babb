/**
 * One writer a folder. The lock file names its owner; a lock whose owner is gone is taken over:
 * on the same machine when the process no longer runs, from another one (a folder on shared storage)
 * when it was not renewed for a minute. Times are those of the file system, not of a clock here.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { StartupError } from "../../errors.js";
import { isObject } from "../../model/json.js";
import { isMissing } from "./files.js";

const LOCK_NAME = "LOCK";
/** Of a server that is about to take the lock, or was killed while it did. */
const ATTEMPT_NAME = /^LOCK\.[0-9a-f-]{36}(\.stale)?$/;
const RENEW_INTERVAL_MS = 10_000;
const FOREIGN_STALE_MS = 60_000;
const ATTEMPTS = 5;

interface Owner {
  pid: number;
  /** Tells two processes with one pid apart; null where the system does not say. */
  startedAt: string | null;
  host: string;
  /** Changes with every boot; null where the system does not say. */
  boot: string | null;
  nonce: string;
}

/** What is known of a process on this machine; exchangeable for tests. */
export interface ProcessTable {
  host: string;
  boot: string | null;
  /** Null: no such process; "": it runs, but its start time is unknown. */
  startTime(pid: number): string | null;
}

export const systemProcesses: ProcessTable = {
  host: hostname(),
  boot: readTextOrNull("/proc/sys/kernel/random/boot_id")?.trim() ?? null,
  startTime(pid) {
    const status = readTextOrNull(`/proc/${pid}/stat`);
    // The command's name, in parentheses, may hold spaces; start time is field 22.
    if (status !== null) return status.slice(status.lastIndexOf(")") + 2).split(" ")[19] ?? "";
    try {
      process.kill(pid, 0);
      return "";
    } catch (error) {
      return error instanceof Error && "code" in error && error.code === "EPERM" ? "" : null;
    }
  },
};

export class FolderLock {
  private timer: NodeJS.Timeout | null = null;

  private constructor(
    private readonly file: string,
    private readonly text: string,
  ) {}

  /** Throws a StartupError that names the owner when the folder is in use. */
  static async take(folder: string, processes = systemProcesses): Promise<FolderLock> {
    const file = path.join(folder, LOCK_NAME);
    const owner: Owner = {
      pid: process.pid,
      startedAt: processes.startTime(process.pid) || null,
      host: processes.host,
      boot: processes.boot,
      nonce: randomUUID(),
    };
    const lock = new FolderLock(file, `${JSON.stringify(owner)}\n`);
    const own = `${file}.${owner.nonce}`;
    await writeFile(own, lock.text, { flag: "wx", mode: 0o640 });
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        if (await tryLink(own, file)) {
          await removeLeftovers(folder, own, processes);
          return lock.renewed();
        }
        await removeStale(file, own, processes);
      }
      throw new StartupError(`${file}: other servers keep taking this lock`);
    } finally {
      await rm(own, { force: true });
    }
  }

  /** Another server may have taken over while this process was stopped for long. */
  async isHeld(): Promise<boolean> {
    return (await readOrNull(this.file)) === this.text;
  }

  async release(): Promise<void> {
    if (this.timer) clearInterval(this.timer);
    this.timer = null;
    if (await this.isHeld()) await rm(this.file, { force: true });
  }

  private renewed(): this {
    this.timer = setInterval(() => void this.renew(), RENEW_INTERVAL_MS);
    this.timer.unref();
    return this;
  }

  private async renew(): Promise<void> {
    const now = new Date();
    // A failure shows at the next write, which asks whether the lock is held.
    if (await this.isHeld().catch(() => false)) await utimes(this.file, now, now).catch(() => {});
  }
}

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

/** Moves a dead owner's lock away; throws a StartupError when the owner lives. */
async function removeStale(file: string, own: string, processes: ProcessTable): Promise<void> {
  const text = await readOrNull(file);
  if (text === null) return;
  const reason = await holderOf(file, text, own, processes);
  if (reason !== null) throw new StartupError(`${file}: the folder is in use by ${reason}`);
  const moved = `${own}.stale`;
  try {
    await rename(file, moved);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  // Someone else was faster, and this is their lock: put it back.
  if ((await readOrNull(moved)) !== text) await tryLink(moved, file);
  await rm(moved, { force: true });
}

/** Files of servers that were killed while they took the lock. */
async function removeLeftovers(
  folder: string,
  own: string,
  processes: ProcessTable,
): Promise<void> {
  for (const name of await readdir(folder)) {
    const file = path.join(folder, name);
    if (!ATTEMPT_NAME.test(name) || file === own) continue;
    const text = await readOrNull(file);
    if (text !== null && (await holderOf(file, text, own, processes)) === null) {
      await rm(file, { force: true });
    }
  }
}

/** Who holds the lock, in words; null when it is stale. */
async function holderOf(
  file: string,
  text: string,
  own: string,
  processes: ProcessTable,
): Promise<string | null> {
  const owner = parseOwner(text);
  if (owner !== null && owner.host === processes.host) {
    if (owner.boot !== processes.boot) return null;
    const started = processes.startTime(owner.pid);
    const runs = started !== null && (started === "" || owner.startedAt === started);
    return runs ? `process ${owner.pid}` : null;
  }
  const [held, now] = await Promise.all([stat(file).catch(() => null), stat(own)]);
  if (held === null) return null;
  const ageMs = now.mtimeMs - held.mtimeMs;
  if (ageMs > FOREIGN_STALE_MS) return null;
  const who = owner === null ? "an unknown server" : `process ${owner.pid} on ${owner.host}`;
  return `${who}; if that is gone for good, the lock is free ${FOREIGN_STALE_MS / 1000} s after its last sign of life`;
}

function parseOwner(text: string): Owner | null {
  try {
    const value: unknown = JSON.parse(text);
    if (!isObject(value)) return null;
    const { pid, startedAt, host, boot, nonce } = value;
    if (!Number.isInteger(pid) || typeof host !== "string" || typeof nonce !== "string") {
      return null;
    }
    return {
      pid: Number(pid),
      startedAt: typeof startedAt === "string" ? startedAt : null,
      host,
      boot: typeof boot === "string" ? boot : null,
      nonce,
    };
  } catch {
    return null;
  }
}

async function readOrNull(file: string): Promise<string | null> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

function readTextOrNull(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null;
  }
}
