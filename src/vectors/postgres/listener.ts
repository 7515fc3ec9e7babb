/**
 * Hints that the registry has changed: NOTIFY over a connection of its own, which is opened again
 * when it breaks, and a clock, because a notification may be lost.
 */
import { Client, type ClientConfig } from "pg";
import { reasonOf } from "../../model/json.js";

export const CHANNEL = "llama_steer_registry";

const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 15_000;

export interface ListenerOptions {
  connection: ClientConfig;
  /** Between two looks without a notification, milliseconds. */
  pollIntervalMs: number;
  onHint(): void;
  /** Told when the connection breaks and when it is there again. */
  onState(connected: boolean, reason: string): void;
}

export class Listener {
  private client: Client | null = null;
  private retry: NodeJS.Timeout | undefined;
  private retryDelayMs = FIRST_RETRY_MS;
  private readonly poll: NodeJS.Timeout;
  private closed = false;

  private constructor(private readonly options: ListenerOptions) {
    this.poll = setInterval(() => options.onHint(), options.pollIntervalMs);
  }

  /** Returns at once; connects in the background. */
  static start(options: ListenerOptions): Listener {
    const listener = new Listener(options);
    void listener.connect();
    return listener;
  }

  async close(): Promise<void> {
    this.closed = true;
    clearInterval(this.poll);
    clearTimeout(this.retry);
    await this.client?.end().catch(() => {});
  }

  private async connect(): Promise<void> {
    const client = new Client(this.options.connection);
    this.client = client;
    const lost = once((reason: string) => this.lost(client, reason));
    client.on("error", ({ message }) => lost(message));
    client.on("end", () => lost("the connection ended"));
    client.on("notification", () => this.options.onHint());
    try {
      await client.connect();
      await client.query(`LISTEN ${CHANNEL}`);
    } catch (error) {
      lost(reasonOf(error));
      return;
    }
    if (this.closed) return void client.end().catch(() => {});
    this.retryDelayMs = FIRST_RETRY_MS;
    this.options.onState(true, "");
    // What was written while nobody listened.
    this.options.onHint();
  }

  private lost(client: Client, reason: string): void {
    client.end().catch(() => {});
    if (this.closed) return;
    this.options.onState(false, reason);
    this.retry = setTimeout(() => void this.connect(), this.retryDelayMs);
    this.retryDelayMs = Math.min(2 * this.retryDelayMs, MAX_RETRY_MS);
  }
}

function once<T>(body: (value: T) => void): (value: T) => void {
  let done = false;
  return (value) => {
    if (done) return;
    done = true;
    body(value);
  };
}
