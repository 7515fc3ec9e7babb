/** A server in this process, over loopback, with the real addon unless another binding is given. */
import { Writable } from "node:stream";
import { App } from "../../src/app.js";
import { LlamaSteerClient } from "../../src/client/client.js";
import { loadConfig } from "../../src/config/load.js";
import type { NativeBinding } from "../../src/native/binding.js";
import { createLogger } from "../../src/observability/logger.js";
import { TemporaryFolder, tinyCheckpoint } from "./tiny-checkpoint.js";

export interface ServerOptions {
  /** Checkpoint folder. Default: the tiny one. */
  model?: string;
  /** Beside model, addresses and registry. */
  flags?: string[];
  binding?: NativeBinding;
  /** False: listens only; call `app.load` yourself. */
  load?: boolean;
}

export class TestServer {
  readonly client: LlamaSteerClient;

  private constructor(
    readonly app: App,
    readonly folder: TemporaryFolder,
    /** Every line that was logged. */
    readonly logLines: string[],
  ) {
    this.client = new LlamaSteerClient({ address: app.addresses.grpc });
  }

  static async start(options: ServerOptions = {}): Promise<TestServer> {
    const folder = new TemporaryFolder();
    const config = loadConfig(
      [
        ...[
          "--model",
          options.model ?? tinyCheckpoint(),
          "--model-name",
          "tiny",
          "--registry",
          folder.join("registry"),
        ],
        ...["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        ...(options.flags ?? []),
      ],
      {},
    );
    if (!config) throw new Error("help was asked for");
    const logLines: string[] = [];
    const logger = await createLogger(
      config.logLevel,
      new Writable({
        write(chunk, _encoding, done) {
          logLines.push(String(chunk));
          done();
        },
      }),
    );
    const { binding } = options;
    const app = await App.listen(config, logger, ...(binding ? [() => binding] : []));
    const server = new TestServer(app, folder, logLines);
    if (options.load !== false) await app.load();
    return server;
  }

  /** Text and status of an HTTP endpoint. */
  async http(path: string, init?: RequestInit): Promise<{ status: number; body: string }> {
    const response = await fetch(`http://${this.app.addresses.http}${path}`, init);
    return { status: response.status, body: await response.text() };
  }

  /** Value of a metric, labels as they stand in the text; NaN when it is not there. */
  async metric(name: string): Promise<number> {
    const { body } = await this.http("/metrics");
    const line = body.split("\n").find((text) => text.startsWith(`llamasteer_${name} `));
    return line === undefined ? Number.NaN : Number(line.slice(line.lastIndexOf(" ")));
  }

  async stop(): Promise<void> {
    this.client.close();
    await this.app[Symbol.asyncDispose]();
    this.folder.remove();
  }
}

/** Polls until the condition holds; the test's own time limit ends it otherwise. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 5));
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
