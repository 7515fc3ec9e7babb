/** Two servers, as processes of their own, on one PostgreSQL database. */
import { LlamaSteerClient } from "../../src/client/client.js";
import { type LiveServer, startLiveServer } from "./live-server.js";
import { sumOfMetric } from "./metrics.js";
import type { PostgresServer } from "./postgres.js";

let databases = 0;

export class Replica {
  readonly client: LlamaSteerClient;

  private constructor(
    private server: LiveServer,
    private readonly options: readonly string[],
  ) {
    this.client = new LlamaSteerClient({ address: server.grpc });
  }

  static async start(options: readonly string[]): Promise<Replica> {
    return new Replica(await startLiveServer(...options), options);
  }

  /** `HOST:PORT` of gRPC; stays the same when it is started again. */
  get address(): string {
    return this.server.grpc;
  }

  async metric(name: string): Promise<number> {
    const response = await fetch(`http://${this.server.http}/metrics`);
    return sumOfMetric(await response.text(), `llamasteer_${name}`);
  }

  /** Whether it has streams in work. */
  async isBusy(): Promise<boolean> {
    return (await this.metric("requests_running")) > 0;
  }

  /** As the kernel does it when memory is out. */
  async kill(): Promise<void> {
    const exited = new Promise((resolve) => this.server.process.once("exit", resolve));
    this.server.process.kill("SIGKILL");
    await exited;
  }

  /** As Kubernetes does it; resolves to the exit code. */
  drain(): Promise<number | null> {
    return this.server.stop();
  }

  /** After `kill` or `drain`: on the same address again. */
  async restart(): Promise<void> {
    await this.server.stop();
    this.server = await startLiveServer(...this.options, "--listen", this.server.grpc);
  }

  async stop(): Promise<void> {
    this.client.close();
    await this.server.stop();
  }
}

/** In a database of their own; stop both. */
export async function startReplicas(
  postgres: PostgresServer,
  ...options: string[]
): Promise<[Replica, Replica]> {
  databases += 1;
  const registry = ["--registry", await postgres.database(`replicas_${databases}`)];
  const all = [...registry, "--threads", "1", ...options];
  return Promise.all([Replica.start(all), Replica.start(all)]);
}
