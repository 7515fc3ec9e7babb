/** Heavy arithmetic on a thread of its own, so that streams go on meanwhile. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { buffersOf, compute, type ResultOf, type Task } from "./work.js";

/** Only the compiled program has it: run from its TypeScript sources, the work is done in place. */
const ENTRY = fileURLToPath(new URL("./worker.js", import.meta.url));

/** One thread, started at the first task. `entry`: the worker's compiled file. */
export class Background implements AsyncDisposable {
  private worker: Worker | null = null;

  constructor(private readonly entry = ENTRY) {}

  /** One task at a time; its arrays move to the thread. Rejects with the signal's reason. */
  async run<T extends Task>(task: T, signal: AbortSignal): Promise<ResultOf<T>> {
    signal.throwIfAborted();
    if (!existsSync(this.entry)) return compute(task);
    this.worker ??= new Worker(this.entry);
    const { worker } = this;
    return new Promise<ResultOf<T>>((resolve, reject) => {
      const settle = () => {
        worker.off("message", onMessage).off("error", fail).off("exit", onExit);
        signal.removeEventListener("abort", onAbort);
      };
      const onMessage = (result: ResultOf<T>) => {
        settle();
        resolve(result);
      };
      const fail = (error: unknown) => {
        settle();
        this.worker = null;
        // Its exit is waited for by no one: the task has already failed.
        void worker.terminate();
        reject(error);
      };
      const onExit = (code: number) => fail(new Error(`the worker ended with code ${code}`));
      const onAbort = () => fail(signal.reason);
      worker.once("message", onMessage).once("error", fail).once("exit", onExit);
      signal.addEventListener("abort", onAbort, { once: true });
      worker.postMessage(task, buffersOf(task));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.worker?.terminate();
    this.worker = null;
  }
}
