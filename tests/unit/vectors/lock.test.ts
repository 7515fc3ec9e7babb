import { execFileSync, spawn } from "node:child_process";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { StartupError } from "../../../src/errors.js";
import {
  FolderLock,
  type ProcessTable,
  systemProcesses,
} from "../../../src/vectors/directory/lock.js";

let folder = "";
const held: FolderLock[] = [];

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "lock-"));
});

afterEach(async () => {
  for (const lock of held.splice(0)) await lock.release();
  rmSync(folder, { recursive: true });
});

async function take(processes?: ProcessTable): Promise<FolderLock> {
  const lock = await FolderLock.take(folder, processes);
  held.push(lock);
  return lock;
}

const file = () => path.join(folder, "LOCK");

function writeOwner(change: Record<string, unknown>): void {
  const owner = { pid: 1, startedAt: "1", host: systemProcesses.host, boot: systemProcesses.boot };
  writeFileSync(file(), `${JSON.stringify({ ...owner, nonce: "n", ...change })}\n`);
}

test("a lock is held until it is released", async () => {
  const lock = await take();
  expect(await lock.isHeld()).toBe(true);
  await expect(take()).rejects.toThrow(`in use by process ${process.pid}`);
  await expect(take()).rejects.toThrow(StartupError);
  await lock.release();
  expect(await (await take()).isHeld()).toBe(true);
});

test("taking, refusing and releasing leave nothing beside the lock", async () => {
  const lock = await take();
  await expect(take()).rejects.toThrow(StartupError);
  expect(readdirSync(folder)).toEqual(["LOCK"]);
  await lock.release();
  expect(readdirSync(folder)).toEqual([]);
});

test("files of servers that were killed while they took the lock go, those of others stay", async () => {
  const attempt = (digit: string, end = "") =>
    `${file()}.${digit.repeat(8)}-0000-0000-0000-${"0".repeat(12)}${end}`;
  writeOwner({ pid: 2 ** 22 + 1 });
  renameSync(file(), attempt("a"));
  writeOwner({ pid: 2 ** 22 + 1 });
  renameSync(file(), attempt("b", ".stale"));
  writeOwner({ pid: process.pid, startedAt: systemProcesses.startTime(process.pid) });
  renameSync(file(), attempt("c"));
  writeFileSync(attempt("d"), "half of an own");
  await take();
  const left = [file(), attempt("c"), attempt("d")].map((name) => path.basename(name));
  expect(readdirSync(folder).sort()).toEqual(left);
});

test("of many at once one takes it", async () => {
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => take()));
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
});

test("of many at once one takes over a stale lock", async () => {
  writeOwner({ pid: 2 ** 22 + 1 });
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => take()));
  const locks = results.filter((result) => result.status === "fulfilled").map((r) => r.value);
  const stillHeld = await Promise.all(locks.map((lock) => lock.isHeld()));
  expect(stillHeld.filter(Boolean)).toHaveLength(1);
});

test("the lock of a process that was killed is taken over", async () => {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
  writeOwner({ pid: child.pid, startedAt: systemProcesses.startTime(child.pid ?? 0) });
  await expect(take()).rejects.toThrow(`in use by process ${child.pid}`);
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
  expect(await (await take()).isHeld()).toBe(true);
});

test("the lock of a process whose pid another one has now is taken over", async () => {
  writeOwner({ pid: process.pid, startedAt: "12345" });
  await take();
});

test("the lock of a time before the last boot is taken over", async () => {
  writeOwner({ pid: process.pid, startedAt: systemProcesses.startTime(process.pid), boot: "old" });
  await take();
});

test("the lock of another machine is taken over a minute after its last sign of life", async () => {
  writeOwner({ host: "elsewhere" });
  await expect(take()).rejects.toThrow("process 1 on elsewhere");
  const past = new Date(Date.now() - 61_000);
  utimesSync(file(), past, past);
  await take();
});

test("a lock file that is no lock is treated as another machine's", async () => {
  writeFileSync(file(), "garbage");
  await expect(take()).rejects.toThrow("an unknown server");
  const past = new Date(Date.now() - 61_000);
  utimesSync(file(), past, past);
  await take();
});

test("a lock that was lost is not released", async () => {
  const lock = await take();
  writeOwner({ host: "elsewhere" });
  expect(await lock.isHeld()).toBe(false);
  await lock.release();
  expect(readFileSync(file(), "utf8")).toContain("elsewhere");
});

test("the process table knows who runs", () => {
  expect(systemProcesses.startTime(process.pid)).not.toBeNull();
  const pid = Number(execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" }));
  expect(systemProcesses.startTime(pid)).toBeNull();
});
