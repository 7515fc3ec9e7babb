/** One run of another program: text in, text out, nothing left behind. */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

const MAX_OUTPUT_BYTES = 256 * 1024 * 1024;
const MAX_QUOTED_CHARACTERS = 2000;

export interface ChildRun {
  argv: readonly string[];
  input: string;
  timeoutSeconds: number;
  signal: AbortSignal;
}

/**
 * What the program printed. It runs in a process group of its own, which ends with it; its TMPDIR is a new
 * folder, which is removed. Throws an Error that names the program when it does not start,
 * fails, prints too much or takes too long; the signal's reason when that is raised.
 */
export async function runChild({ argv, input, timeoutSeconds, signal }: ChildRun): Promise<string> {
  signal.throwIfAborted();
  const folder = await mkdtemp(path.join(tmpdir(), "llama-steer-judge-"));
  try {
    return await runIn(folder, argv, input, timeoutSeconds, signal);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function runIn(
  folder: string,
  argv: readonly string[],
  input: string,
  timeoutSeconds: number,
  signal: AbortSignal,
): Promise<string> {
  const [program = "", ...args] = argv;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      detached: true,
      env: { ...process.env, TMPDIR: folder },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let ended: Error | null = null;
    const endGroup = (reason: Error) => {
      ended ??= reason;
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // The group has ended already.
      }
    };
    const onAbort = () => endGroup(asError(signal.reason));
    const timer = setTimeout(
      () => endGroup(new Error(`${program} took more than ${timeoutSeconds} s`)),
      timeoutSeconds * 1000,
    );
    signal.addEventListener("abort", onAbort, { once: true });
    const output = collect(child.stdout, () => endGroup(new Error(`${program} printed too much`)));
    const complaints = collect(child.stderr, () =>
      endGroup(new Error(`${program} complained too much`)),
    );
    // A program that ends before it has read everything breaks the pipe; its exit code says why.
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      endGroup(new Error(`${program} has ended`));
      settle();
    };
    child.on("error", (error) =>
      finish(() => reject(new Error(`${program} does not start: ${error.message}`))),
    );
    child.on("close", (code, killedBy) => {
      const reason = ended;
      finish(() => {
        if (reason !== null) return reject(reason);
        if (code === 0) return resolve(output());
        const said = complaints().trim().slice(-MAX_QUOTED_CHARACTERS);
        reject(new Error(`${program} failed (${killedBy ?? `exit code ${code}`}): ${said}`));
      });
    });
  });
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

function collect(stream: NodeJS.ReadableStream, onTooMuch: () => void): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_OUTPUT_BYTES) onTooMuch();
    else chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString("utf8");
}
