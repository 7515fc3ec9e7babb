// A process with an engine, for tests of how it ends: node child.mjs SCENARIO OPTIONS_JSON
// The addon is opened by hand: the project's TypeScript is not compiled here.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { setImmediate } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const [scenario, optionsFile] = isMainThread ? process.argv.slice(2) : workerData;
const addon =
  process.env.LLAMA_STEER_ADDON_PATH ??
  path.resolve(import.meta.dirname, "../../../out/addon/Release/llama_steer.node");
const binding = createRequire(import.meta.url)(addon);
const options = {
  ...JSON.parse(readFileSync(optionsFile, "utf8")),
  // JSON holds no typed arrays.
  tokenBytes: new Uint8Array(),
  tokenOffsets: new Uint32Array(),
};

const request = (id, maxNewTokens) => ({
  id,
  promptTokenIds: Uint32Array.of(1, 2, 3, 4, 5),
  completions: 1,
  maxNewTokens,
  sampling: {
    temperature: 1,
    topP: 1,
    topK: 0,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    seed: 7n,
    stopTokenIds: new Uint32Array(),
    logitBiasTokenIds: new Uint32Array(),
    logitBiasValues: new Float32Array(),
    logprobs: false,
    topLogprobs: 0,
  },
  steering: [],
  capture: null,
  promptLogprobsFrom: null,
  credits: 1 << 20,
  captureCreditBytes: 1 << 20,
  proofPromptTokens: 0,
  cacheSalt: "",
  deadlineNs: 0n,
  adapter: 0,
  probes: [],
  compareUnsteered: false,
});

const LONG = 400;
const threads = () => Number(readFileSync("/proc/self/status", "utf8").match(/Threads:\t(\d+)/)[1]);

/** Opens an engine; `onEvent` gets every event with the engine. */
function open(onEvent) {
  const engine = binding.openEngine(options, (events) => {
    for (const event of events) onEvent(event, engine);
  });
  return engine;
}

function submitAll(engine, ids) {
  for (const id of ids) engine.submit(request(id, LONG));
}

const whenReady = (event, act) => {
  if (event.type === "fatal") throw new Error(event.status.message);
  if (event.type === "ready") act();
};

const SCENARIOS = {
  /** Nothing is closed: the process ends when the request has ended. */
  idle() {
    let tokens = 0;
    open((event, engine) => {
      whenReady(event, () => engine.submit(request(1, 20)));
      if (event.type === "token") tokens += 1;
      if (event.type === "done") console.log(`done after ${tokens} tokens`);
    });
  },

  exitWhileStreaming() {
    let tokens = 0;
    open((event, engine) => {
      whenReady(event, () => submitAll(engine, [1, 2, 3]));
      if (event.type !== "token" || ++tokens < 5) return;
      console.log("exiting");
      process.exit(0);
    });
  },

  exitWhileLoading() {
    open(() => {});
    process.exit(0);
  },

  closeWhileLoading() {
    const engine = open(() => {});
    engine.close();
    console.log("closed");
  },

  uncaughtErrorWhileStreaming() {
    open((event, engine) => {
      whenReady(event, () => engine.submit(request(1, LONG)));
      if (event.type === "token") throw new Error("the handler broke");
    });
  },

  /** A handler that throws once loses nothing but its own batch. */
  throwingHandler() {
    let thrown = false;
    const main = open((event, engine) => {
      whenReady(event, () => engine.submit(request(1, LONG)));
      if (event.type === "token" && !thrown) {
        thrown = true;
        throw new Error("the handler broke");
      }
      if (event.type === "done" && event.id === 2) console.log("done");
    });
    process.on("uncaughtException", (error) => {
      console.log(`caught: ${error.message}`);
      // What came together with the event that broke the handler is lost, the end of 1 perhaps too.
      main.submit(request(2, LONG));
    });
  },

  /** The main thread's stream goes on while engines in workers are terminated in mid-stream. */
  async terminateWorkers() {
    let ended = false;
    const main = open((event, engine) => {
      whenReady(event, () => engine.submit(request(1, LONG)));
      if (event.type === "done") ended = true;
    });
    for (let round = 0; round < 10; ++round) {
      const worker = new Worker(import.meta.filename, { workerData: ["stream", optionsFile] });
      await new Promise((resolve) => worker.once("message", resolve));
      await worker.terminate();
    }
    while (!ended) await setImmediate();
    main.close();
    console.log("survived");
  },

  /** Worker: tells the parent of its first token and goes on. */
  stream() {
    let told = false;
    open((event, engine) => {
      whenReady(event, () => submitAll(engine, [1, 2]));
      if (event.type !== "token" || told) return;
      told = true;
      parentPort.postMessage("streaming");
    });
  },

  async workersThatExit() {
    for (const inner of ["exitWhileStreaming", "exitWhileLoading", "closeWhileLoading", "idle"]) {
      const worker = new Worker(import.meta.filename, { workerData: [inner, optionsFile] });
      const code = await new Promise((resolve) => worker.once("exit", resolve));
      if (code !== 0) throw new Error(`${inner} ended with ${code}`);
    }
    console.log("survived");
  },

  /** An engine that nobody holds is collected and its threads end (needs --expose-gc). */
  async collect() {
    const before = threads();
    await new Promise((resolve) => {
      open((event) => whenReady(event, resolve));
    });
    if (threads() <= before) throw new Error("the engine has no thread");
    for (let i = 0; i < 200 && threads() > before; ++i) {
      await setImmediate();
      globalThis.gc();
    }
    console.log(threads() <= before ? "collected" : "leaked");
  },

  async reopen() {
    const before = threads();
    for (let round = 0; round < 20; ++round) {
      await new Promise((resolve) => {
        open((event, engine) => {
          whenReady(event, () => engine.submit(request(1, 3)));
          if (event.type !== "done") return;
          engine.close();
          engine.close();
          resolve();
        });
      });
    }
    console.log(threads() <= before ? "no thread left" : "threads left");
  },
};

await SCENARIOS[scenario]();
