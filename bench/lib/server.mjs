/** The service as a process of its own, started as a user starts it. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

/** LLAMA_STEER_DIST: compiled TypeScript of another place than dist/. */
export const dist = path.resolve(process.env.LLAMA_STEER_DIST ?? "dist");
export const { LlamaSteerClient, ClientError, floatsToBytes } = await import(
  pathToFileURL(path.join(dist, "client", "client.js")).href
);

const READY_TIMEOUT_MS = 600_000;
const MIB = 2 ** 20;

export class Server {
  /**
   * Resolves when the line "ready" has come. `readySeconds` is counted from the start. `nodeArgs`: of
   * Node itself, as "--cpu-prof".
   */
  static async start({ model, args = [], nodeArgs = [] }) {
    const registry = mkdtempSync(path.join(os.tmpdir(), "llama-steer-bench-"));
    const fixed = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--registry", registry];
    const command = [path.join(dist, "cli", "main.js"), "serve", "--model", model];
    const begin = process.hrtime.bigint();
    const child = spawn(process.execPath, [...nodeArgs, ...command, ...fixed, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    // A bench that fails leaves no server behind.
    const kill = () => child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    const ready = await readyLine(child);
    const readySeconds = Number(process.hrtime.bigint() - begin) / 1e9;
    return new Server(child, registry, ready, readySeconds, cpuSeconds(child.pid));
  }

  /** `readyCpuSeconds`: of all its threads, until then; what else the machine does adds little. */
  constructor(child, registry, ready, readySeconds, readyCpuSeconds) {
    this.child = child;
    this.registry = registry;
    this.address = ready.grpc;
    this.http = ready.http;
    this.readySeconds = readySeconds;
    this.readyCpuSeconds = readyCpuSeconds;
  }

  client() {
    return new LlamaSteerClient({ address: this.address });
  }

  /** Values of /metrics without labels, and the sum over labels of those that have them. */
  async metrics() {
    const response = await fetch(`http://${this.http}/metrics`);
    const values = {};
    for (const line of (await response.text()).split("\n")) {
      const match = /^([a-zA-Z0-9_:]+)(?:\{[^}]*\})? (\S+)$/.exec(line);
      if (match) values[match[1]] = (values[match[1]] ?? 0) + Number(match[2]);
    }
    return values;
  }

  /** MiB, as the kernel counts them. Anonymous: heaps and KV cache. File: mapped weights. */
  memory() {
    const status = readProc(this.child.pid, "status");
    const rollup = readProc(this.child.pid, "smaps_rollup");
    return {
      rss: status.VmRSS / MIB,
      peakRss: status.VmHWM / MIB,
      anonymous: status.RssAnon / MIB,
      file: status.RssFile / MIB,
      pss: rollup.Pss / MIB,
      pssAnonymous: rollup.Pss_Anon / MIB,
      pssFile: rollup.Pss_File / MIB,
    };
  }

  /** Of all its threads, since its start. */
  cpuSeconds() {
    return cpuSeconds(this.child.pid);
  }

  /** SIGTERM; resolves to the exit code. */
  async stop() {
    const exited = new Promise((resolve) => {
      this.child.once("exit", (code, signal) => resolve(code ?? signal));
    });
    this.child.kill("SIGTERM");
    const code = await exited;
    rmSync(this.registry, { recursive: true, force: true });
    return code;
  }
}

/** User and system time, fields 14 and 15 of proc_pid_stat(5), in hundredths of a second. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** "Name:   123 kB" lines -> bytes. */
function readProc(pid, name) {
  const values = {};
  for (const line of readFileSync(`/proc/${pid}/${name}`, "utf8").split("\n")) {
    const match = /^(\w+):\s+(\d+) kB/.exec(line);
    if (match) values[match[1]] = Number(match[2]) * 1024;
  }
  return values;
}

function readyLine(child) {
  return new Promise((resolve, reject) => {
    const fail = (text) => {
      clearTimeout(timer);
      child.kill("SIGKILL");
      reject(new Error(`the server did not start: ${text}`));
    };
    const timer = setTimeout(() => fail('no line "ready" in time'), READY_TIMEOUT_MS);
    const failures = [];
    child.once("exit", (code) => fail(`exit ${code}: ${failures.join("; ")}`));
    const lines = readline.createInterface({ input: child.stdout });
    lines.on("line", (line) => {
      let entry;
      try {
        entry = JSON.parse(line);
      } catch {
        return;
      }
      if (entry.level === "error" || entry.level === "fatal" || entry.level >= 50) {
        failures.push(entry.msg);
        process.stderr.write(`${line}\n`);
      }
      if (entry.msg !== "ready") return;
      clearTimeout(timer);
      child.removeAllListeners("exit");
      resolve(entry);
    });
  });
}
