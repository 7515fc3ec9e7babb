/** Entry of the worker thread: one task a message, one answer each, in order. */
import { parentPort } from "node:worker_threads";
import { compute, type Task } from "./work.js";

parentPort?.on("message", (task: Task) => parentPort?.postMessage(compute(task)));
