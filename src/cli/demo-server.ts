/** A server of one's own for a while: `serve` as a child process on free ports. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { CommandError } from "./exit.js";
import { STOP_WITH_STDIN } from "./serve.js";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
/** Lines of the server's log that are shown when it fails to start. */
const LOG_LINES_SHOWN = 5;

export interface DemoServer {
  /** `HOST:PORT` of gRPC. */
  address: string;
  /** Resolves when the process has ended, for whatever reason. */
  exited: Promise<void>;
  /** Stops it and removes its registry. */
  stop(): Promise<void>;
}

/**
 * Starts `serve` with these arguments and waits until it is ready. Throws a CommandError with the end
 * of its log.
 */
export async function startDemoServer(
  serve: readonly string[],
  signal: AbortSignal,
): Promise<DemoServer> {
  const folder = await mkdtemp(path.join(tmpdir(), "llama-steer-demo-"));
  const free = "127.0.0.1:0";
  const server = spawn(
    process.execPath,
    [
      ...[MAIN, "serve", ...serve, "--listen", free, "--http", free],
      ...["--registry", path.join(folder, "registry"), "--capture", "on"],
    ],
    // Its own process group: an interrupt reaches it through `stop`, once. Its standard input ends with
    // this process, whatever ends it, and then the server stops too.
    {
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
      env: { ...process.env, [STOP_WITH_STDIN]: "1" },
    },
  );
  const exited = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  const stop = async () => {
    if (server.exitCode === null && server.signalCode === null) server.kill("SIGTERM");
    await exited;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    return { address: await readyAddress(server, signal), exited, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The address in the line that the server logs when it is ready. */
function readyAddress(server: ChildProcess, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const log: string[] = [];
    const fail = (text: string) => {
      const tail = log.slice(-LOG_LINES_SHOWN).map(messageOf).join("; ");
      reject(new CommandError(tail ? `${text}: ${tail}` : text));
    };
    signal.addEventListener("abort", () => fail("interrupted"), { once: true });
    server.once("error", (error) => fail(`the server cannot be started: ${error.message}`));
    // "close", not "exit": the log has then been read to its end.
    server.once("close", () => fail("the server did not start"));
    for (const stream of [server.stdout, server.stderr]) {
      if (!stream) continue;
      createInterface({ input: stream }).on("line", (line) => {
        log.push(line);
        if (log.length > LOG_LINES_SHOWN) log.shift();
        const { msg, grpc } = parseLine(line);
        if (msg === "ready" && typeof grpc === "string") resolve(grpc);
      });
    }
  });
}

function parseLine(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) ?? {};
  } catch {
    return {};
  }
}

function messageOf(line: string): string {
  const { msg, err } = parseLine(line);
  const text = (err as { message?: unknown } | undefined)?.message ?? msg ?? line;
  return String(text);
}
