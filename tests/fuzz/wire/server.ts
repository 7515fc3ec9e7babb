/** The server that is fuzzed, and what must be true of it between any two rounds. */
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { text as readText } from "node:stream/consumers";
import { LlamaSteerClient } from "../../../src/client/client.js";
import { type LiveServer, startLiveServer } from "../../support/live-server.js";
import { sumOfMetric } from "../../support/metrics.js";
import { tinyCheckpoint } from "../../support/tiny-checkpoint.js";
import { randomRow } from "../../support/vectors.js";

/** Looks until it must be empty again: deadlines are seconds, slow readers are given so much. */
const EMPTY_WITHIN_LOOKS = 1000;
const BETWEEN_LOOKS_MS = 20;
/**
 * Heap that was not collected yet, code that was compiled, a registry that is full. AddressSanitizer
 * allocates for all of Node, and keeps what was freed.
 */
const IS_SANITIZED = process.env["ASAN_OPTIONS"] !== undefined;
const MEMORY_SLACK_BYTES = (IS_SANITIZED ? 2048 : 160) * 1024 ** 2;
const MAX_REGISTRY_BYTES = 4_000_000;
/** Its own client's. */
const OWN_CONNECTIONS = 1;
const EMPTY = [
  "requests_running",
  "requests_waiting",
  "kv_cache_usage_ratio",
  "capture_reserved_bytes",
];

/** A steering may be as large as float32 is: docs/errors.md says what happens then. */
const OVERFLOW = /"message":"[^"]*(non-finite|not finite)/;

const rows = [0, 1, 2].map((layer) => ({ layer, data: randomRow(layer, 0.1) }));
const GREEDY = { maxNewTokens: 6, temperature: 0 };
const PAIRS = ["the", "a", "last"].map((text) => ({
  positive: { prompt: `the first ${text}` },
  negative: { prompt: `the last ${text}` },
}));

export class FuzzedServer {
  private expected = "";
  private startBytes = 0;
  private peakBytes = 0;

  private constructor(
    private readonly server: LiveServer,
    private readonly client: LlamaSteerClient,
  ) {}

  static async start(): Promise<FuzzedServer> {
    const server = await startLiveServer(
      ...["--model", tinyCheckpoint(), "--threads", "1"],
      ...["--max-registry-bytes", String(MAX_REGISTRY_BYTES)],
      ...["--slow-reader-timeout-seconds", "5"],
    );
    const fuzzed = new FuzzedServer(server, new LlamaSteerClient({ address: server.grpc }));
    await fuzzed.refill();
    fuzzed.expected = await fuzzed.tokens();
    return fuzzed;
  }

  get address(): string {
    return this.server.grpc;
  }

  /** The greedy answer to a steered request that no write of others can change. */
  private async tokens(): Promise<string> {
    const { completions } = await this.client.generate({
      prompt: "the last",
      steering: [{ inline: { rows }, coefficient: 2 }],
      sampling: GREEDY,
    });
    return JSON.stringify(completions[0]?.tokenIds);
  }

  /** The vector and the probe that requests name, whatever was made of them; nothing else. */
  private async refill(): Promise<void> {
    const { vectors, probes } = this.client;
    for await (const { vectorId } of vectors.list({})) await vectors.delete(vectorId);
    for await (const { probeId } of probes.list({})) await probes.delete(probeId);
    await vectors.create({ vectorId: "a", rows });
    await probes.fit({ probeId: "p", pairs: PAIRS, layer: 1 });
  }

  /** Throws when the server is not what it was before the round. */
  async look(): Promise<void> {
    const { exitCode, signalCode } = this.server.process;
    if (exitCode !== null || signalCode !== null) {
      throw new Error(`the server ended: ${exitCode ?? signalCode}`);
    }
    const tokens = await this.tokens();
    if (tokens !== this.expected) throw new Error(`${tokens} in place of ${this.expected}`);
    await this.becomesEmpty();
    this.readLog();
    await this.refill();
    const bytes = (await this.metrics())("process_resident_memory_bytes");
    this.startBytes ||= bytes;
    this.peakBytes = Math.max(this.peakBytes, bytes);
    if (bytes > this.startBytes + MEMORY_SLACK_BYTES) {
      throw new Error(`memory grew from ${this.startBytes} to ${bytes} bytes`);
    }
  }

  private async metrics(): Promise<(name: string) => number> {
    // A connection of its own: a kept one may just be closed after a pause.
    const response = get(`http://${this.server.http}/metrics`, { agent: false });
    const [message]: IncomingMessage[] = await once(response, "response");
    if (!message) throw new Error("no answer");
    const text = await readText(message);
    return (name) => sumOfMetric(text, name);
  }

  private async becomesEmpty(): Promise<void> {
    for (let looks = 1; ; looks += 1) {
      const metric = await this.metrics();
      const left = EMPTY.filter((name) => metric(`llamasteer_${name}`) !== 0);
      const connections = metric("llamasteer_connections");
      if (connections > OWN_CONNECTIONS) left.push(`${connections} connections`);
      if (left.length === 0) return;
      if (looks === EMPTY_WITHIN_LOOKS) throw new Error(`left behind: ${left.join(", ")}`);
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_LOOKS_MS));
    }
  }

  /** Errors that nobody foresaw have a line; an uncaught one would have ended the process. */
  private readLog(): void {
    const { log } = this.server;
    const bad = log.find((line) => /"level":"(error|fatal)"/.test(line) && !OVERFLOW.test(line));
    if (bad !== undefined) throw new Error(`in the log: ${bad}`);
    log.length = 0;
  }

  /** For the record. */
  get memory(): string {
    const mib = (bytes: number) => Math.round(bytes / 1024 ** 2);
    return `resident ${mib(this.startBytes)} MiB at first, ${mib(this.peakBytes)} MiB at most`;
  }

  /** Resolves to the exit code. */
  stop(): Promise<number | null> {
    this.client.close();
    return this.server.stop();
  }
}
