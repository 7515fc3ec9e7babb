/**
 * The servers of a study: calls go to the one with the least to do, and are sent again where that is
 * safe, which it is for every call of a study: the same request gives the same answer.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ClientError, type LlamaSteerClient } from "../../client/client.js";
import { StudyError } from "../plan/server.js";

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 5000;
/** A call that fails so often while its servers are up is not going to succeed. */
const MAX_ATTEMPTS = 50;
const PROBE_MS = 2000;

export interface FleetOptions {
  /** How long a server may be away before it is given up. */
  waitMs: number;
  /** Throws when the server is not the one it must be; then registers what calls will name. */
  prepare(client: LlamaSteerClient, signal: AbortSignal): Promise<void>;
  /** Told when a server goes away, comes back or is given up. */
  say(text: string): void;
}

interface Member {
  client: LlamaSteerClient;
  inFlight: number;
  /** While it is being waited for. */
  recovery: Promise<void> | undefined;
  failure: Error | undefined;
}

export class Fleet {
  readonly #members: Member[];
  readonly #options: FleetOptions;
  readonly #signal: AbortSignal;

  constructor(clients: readonly LlamaSteerClient[], options: FleetOptions, signal: AbortSignal) {
    this.#members = clients.map((client) => ({
      client,
      inFlight: 0,
      recovery: undefined,
      failure: undefined,
    }));
    this.#options = options;
    this.#signal = signal;
  }

  get size(): number {
    return this.#members.length;
  }

  /** Does `work` with one server. Throws a ClientError that trying again cannot mend, or a StudyError. */
  async call<T>(work: (client: LlamaSteerClient) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const member = await this.#next();
      member.inFlight++;
      try {
        return await work(member.client);
      } catch (error) {
        if (this.#signal.aborted || attempt >= MAX_ATTEMPTS) throw error;
        await this.#mend(member, error, attempt);
      } finally {
        member.inFlight--;
      }
    }
  }

  /** The server with the least to do; waits while all are away. */
  async #next(): Promise<Member> {
    for (;;) {
      this.#signal.throwIfAborted();
      const alive = this.#members.filter(({ failure }) => failure === undefined);
      if (alive.length === 0) throw this.#members[0]?.failure ?? new StudyError("no server");
      const ready = alive.filter(({ recovery }) => recovery === undefined);
      const [first, ...others] = ready;
      if (first) {
        return others.reduce((best, next) => (next.inFlight < best.inFlight ? next : best), first);
      }
      await Promise.race(alive.map(({ recovery }) => recovery));
    }
  }

  /** Returns when the call may be tried again, on any server; throws `error` when that would be of no use. */
  async #mend(member: Member, error: unknown, attempt: number): Promise<void> {
    if (!(error instanceof ClientError)) throw error;
    const { code, reason, retryDelayMs, resource } = error;
    const backoff = Math.min(FIRST_DELAY_MS * 2 ** (attempt - 1), MAX_DELAY_MS);
    if (code === "RESOURCE_EXHAUSTED" && retryDelayMs !== undefined) {
      await sleep(retryDelayMs, undefined, { signal: this.#signal });
      return;
    }
    const lostVector = code === "NOT_FOUND" && resource?.type === "vector" && attempt < 5;
    // Without a reason the error is not the service's own: the connection broke.
    const broken = (code === "INTERNAL" || code === "UNKNOWN") && reason === undefined;
    if (code === "UNAVAILABLE" || code === "CANCELLED" || lostVector || (broken && attempt < 5)) {
      member.recovery ??= this.#recover(member, error).finally(() => {
        member.recovery = undefined;
      });
      // Not waited for here: another server can take the call.
      if (attempt > 1) await sleep(backoff, undefined, { signal: this.#signal });
      return;
    }
    throw error;
  }

  /** Waits until the server is there again and has what calls name; never throws. */
  async #recover(member: Member, cause: ClientError): Promise<void> {
    const { waitMs, prepare, say } = this.#options;
    const { address } = member.client;
    const deadline = performance.now() + waitMs;
    say(`the server at ${address} is away (${cause.message}): waiting for it`);
    for (let delay = FIRST_DELAY_MS; ; delay = Math.min(delay * 2, MAX_DELAY_MS)) {
      try {
        this.#signal.throwIfAborted();
        await member.client.waitForReady(PROBE_MS, this.#signal);
        await prepare(member.client, this.#signal);
        say(`the server at ${address} is back`);
        return;
      } catch (error) {
        if (this.#signal.aborted) return;
        const away = error instanceof ClientError && TRANSIENT.has(error.code);
        if (!away || performance.now() > deadline) {
          member.failure = away
            ? new StudyError(`the server at ${address} did not come back: ${cause.message}`)
            : (error as Error);
          say(`gave up ${address}: ${member.failure.message}`);
          return;
        }
        await sleep(delay);
      }
    }
  }
}

const TRANSIENT: ReadonlySet<string> = new Set([
  "UNAVAILABLE",
  "CANCELLED",
  "RESOURCE_EXHAUSTED",
  "DEADLINE_EXCEEDED",
  "UNKNOWN",
]);

/**
 * Does `work` for every item, `atOnce` at a time, begun in the order given. The first failure stops
 * the others, and is thrown when all have ended.
 */
export async function forEachAtOnce<T>(
  items: Iterable<T>,
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const failures: unknown[] = [];
  const worker = async () => {
    while (failures.length === 0) {
      const next = iterator.next();
      if (next.done) return;
      try {
        await work(next.value);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  if (failures.length > 0) throw failures[0];
}
