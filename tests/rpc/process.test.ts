/** `llama-steer serve` as a process: what it prints, what signals do, how it ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LlamaSteerClient } from "../../src/client/client.js";
import { flagName, OPTION_KEYS } from "../../src/config/load.js";
import { addonFile } from "../../src/native/load.js";
import { checkHealth } from "../support/health.js";
import { MAIN, run } from "../support/live-server.js";
import { collect } from "../support/server.js";
import { TemporaryFolder, tinyCheckpoint } from "../support/tiny-checkpoint.js";

let folder: TemporaryFolder;
beforeEach(() => {
  folder = new TemporaryFolder();
});
afterEach(() => folder.remove());

const FREE = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
const registry = () => ["--registry", folder.join("registry")];

interface Line {
  msg: string;
  grpc: string;
  http: string;
  [field: string]: unknown;
}

class Served {
  readonly lines: Line[] = [];
  readonly exit: Promise<number | null>;
  private wake: () => void = () => {};
  private readonly child: ChildProcess;

  constructor(args: string[], env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [MAIN, "serve", ...args], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...env },
    });
    this.exit = new Promise((resolve) => {
      this.child.once("exit", (code) => resolve(code));
    });
    if (this.child.stdout) {
      createInterface({ input: this.child.stdout }).on("line", (line) => {
        this.lines.push(JSON.parse(line));
        this.wake();
      });
    }
  }

  static tiny(...flags: string[]): Served {
    return new Served(["--model", tinyCheckpoint(), ...FREE, ...registry(), ...flags]);
  }

  async line(msg: string): Promise<Line> {
    for (;;) {
      const found = this.lines.find((line) => line.msg === msg);
      if (found) return found;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

const LONG = { prompt: "a", sampling: { maxNewTokens: 500, ignoreEos: true } };

/** A stream whose client has read one event only. */
async function openStream(address: string) {
  const client = new LlamaSteerClient({ address });
  const events = client.generateStream({ ...LONG, sampling: { ...LONG.sampling, n: 16 } });
  expect((await events.next()).value?.event).toBe("started");
  return { client, events };
}

describe("signals", () => {
  it("SIGTERM: NOT_SERVING at once, the accepted stream finishes, exit 0", async () => {
    const served = Served.tiny();
    const { grpc } = await served.line("ready");
    const { client, events } = await openStream(grpc);
    served.kill("SIGTERM");
    await served.line("draining");
    expect(await checkHealth(grpc, "")).toBe("NOT_SERVING");
    let tokens = 0;
    let last: string | undefined;
    for await (const { event, delta } of events) {
      tokens += delta?.tokenIds.length ?? 0;
      last = event;
    }
    expect(tokens).toBe(16 * 500);
    expect(last).toBe("finished");
    client.close();
    expect(await served.exit).toBe(0);
  });

  it("SIGINT drains too, and exits with 130", async () => {
    const served = Served.tiny();
    await served.line("ready");
    served.kill("SIGINT");
    expect(await served.exit).toBe(130);
  });

  it("a second SIGTERM does not wait", async () => {
    const served = Served.tiny("--drain-timeout-seconds", "3600");
    const { grpc } = await served.line("ready");
    const { client, events } = await openStream(grpc);
    served.kill("SIGTERM");
    await served.line("draining");
    served.kill("SIGTERM");
    expect(await served.exit).toBe(1);
    await expect(collect(events)).rejects.toMatchObject({
      code: expect.stringMatching(/^(UNAVAILABLE|CANCELLED)$/),
    });
    client.close();
  });
});

describe("configuration", () => {
  it("comes from flags over environment over file", async () => {
    const file = folder.join("config.json");
    const json = {
      model: tinyCheckpoint(),
      model_name: "from-file",
      max_steerings: 3,
      capture: "off",
    };
    writeFileSync(file, JSON.stringify(json));
    const served = new Served(["--config", file, ...FREE, ...registry(), "--max-logprobs", "7"], {
      LLAMA_STEER_MODEL_NAME: "from-environment",
      LLAMA_STEER_MAX_LOGPROBS: "9",
      // Set by Kubernetes for a Service of this name.
      LLAMA_STEER_PORT: "tcp://10.0.0.1:50051",
    });
    const { grpc } = await served.line("ready");
    const client = new LlamaSteerClient({ address: grpc });
    const model = await client.model.get();
    client.close();
    expect(model.name).toBe("from-environment");
    expect(model.limits).toMatchObject({ maxSteerings: 3, maxLogprobs: 7 });
    expect(model.captureEnabled).toBe(false);
    served.kill("SIGTERM");
    await served.exit;
  });

  it("--help shows every option and exits with 0", async () => {
    const { code, stdout } = await run(process.execPath, [MAIN, "serve", "--help"]);
    expect(code).toBe(0);
    for (const key of OPTION_KEYS) expect(stdout).toContain(`--${flagName(key)}`);
  });

  it.each([
    ["no model", [], "--model is required"],
    ["an unknown flag", ["--modle", "x"], "--modle"],
    ["a word too much", ["--model", "x", "y"], "y"],
    ["a bad number", ["--model", "x", "--threads", "many"], "--threads: must be a whole number"],
    ["listening to everyone", ["--model", "x", "--listen", "0.0.0.0:1"], "--insecure-listen"],
    [
      "an adapter without a folder",
      ["--model", "x", "--adapter", "y"],
      "--adapter: must be ID=DIR",
    ],
  ])("%s exits with 2 and says what is wrong", async (_name, args, text) => {
    const { code, stderr } = await run(process.execPath, [MAIN, "serve", ...args]);
    expect(code).toBe(2);
    expect(stderr).toContain(text);
  });
});

describe("a start that fails", () => {
  const failing = async (...args: string[]) => {
    const served = new Served([...FREE, ...registry(), ...args]);
    expect(await served.exit).toBe(1);
    return served.lines.find(({ level }) => level === "fatal")?.msg ?? "";
  };

  it("says what is wrong with the checkpoint, and where", async () => {
    expect(await failing("--model", folder.join("nothing"))).toContain("nothing: no such folder");
    const empty = folder.join("empty");
    mkdirSync(empty);
    expect(await failing("--model", empty)).toContain("config.json");
  });

  it("names an address that is taken", async () => {
    const served = Served.tiny();
    const { grpc, http } = await served.line("ready");
    const taken = ["--model", tinyCheckpoint(), "--registry", folder.join("other")];
    expect(await failing(...taken, "--listen", grpc)).toContain(grpc);
    expect(await failing(...taken, "--http", http)).toContain(http);
    served.kill("SIGTERM");
    await served.exit;
  });

  it("names a registry that another server writes", async () => {
    const served = Served.tiny();
    await served.line("ready");
    expect(await failing("--model", tinyCheckpoint())).toContain(folder.join("registry"));
    served.kill("SIGTERM");
    await served.exit;
  });

  it("names a device that is not there", async () => {
    const text = await failing("--model", tinyCheckpoint(), "--device", "cuda:99");
    expect(text).toMatch(/cuda/i);
  });

  it("refuses weights that the device does not have", async () => {
    const text = await failing("--model", tinyCheckpoint(), "--device", "cpu", "--dtype", "fp8");
    expect(text).toContain("fp8 weights need a CUDA device, this is cpu");
  });
});

describe("the device", () => {
  /** An addon with no plugin beside it. */
  const addonAlone = () => {
    const alone = folder.join("llama_steer.node");
    copyFileSync(addonFile(), alone);
    return { LLAMA_STEER_ADDON_PATH: alone };
  };
  const REASON = "no CUDA device can be used: the CPU computes";

  it("auto says in one line why it is the CPU, and serves", async () => {
    const served = new Served(
      ["--model", tinyCheckpoint(), ...FREE, ...registry(), "--device", "auto"],
      addonAlone(),
    );
    const { device } = await served.line("ready");
    expect(device).toMatchObject({ kind: "cpu" });
    const lines = served.lines.filter(({ msg }) => msg === REASON);
    expect(lines).toHaveLength(1);
    expect(lines[0]?.["reason"]).toContain("libllama_steer_cuda.so: cannot open shared object");
    served.kill("SIGTERM");
    expect(await served.exit).toBe(0);
  });

  it("cpu needs no reason", async () => {
    const served = Served.tiny("--device", "cpu");
    await served.line("ready");
    expect(served.lines.some(({ msg }) => msg === REASON)).toBe(false);
    served.kill("SIGTERM");
    await served.exit;
  });
});
