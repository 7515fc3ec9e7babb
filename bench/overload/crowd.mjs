/** The clients: so many that never pause, or as many as come, each following what it is told. */
import { setTimeout as sleep } from "node:timers/promises";
import { randomSource, shortRequest } from "../lib/load.mjs";
import { frameOf, OK, RESOURCE_EXHAUSTED } from "./wire-client.mjs";

/** Refusals after which a client gives up. */
export const MAX_ATTEMPTS = 5;
/** Calls at the same time: more than a pause of seconds on either side brings, unless the service hangs. */
const MAX_CALLS = 20_000;
/** For the calls that are under way at the end. */
const DRAIN_MS = 60_000;
/** How often this process looks who is due. */
const TICK_MS = 1;
/** Of a client that was refused without a word on when to come back. */
const UNTOLD_DELAY_MS = 1000;

/** Between two clients that come at random times. */
const gapMs = (random, ratePerSecond) => (-Math.log(1 - random()) / ratePerSecond) * 1000;

/** Who waits for the time to come back: a list a millisecond, since there are tens of thousands. */
class Sleepers {
  size = 0;
  #lists = new Map();
  #nextMs = Math.floor(performance.now());

  add(client, dueMs) {
    const ms = Math.max(Math.ceil(dueMs), this.#nextMs);
    const list = this.#lists.get(ms);
    if (list) list.push(client);
    else this.#lists.set(ms, [client]);
    this.size += 1;
  }

  *takeDue(nowMs) {
    for (; this.#nextMs <= nowMs; this.#nextMs++) {
      const list = this.#lists.get(this.#nextMs) ?? [];
      this.#lists.delete(this.#nextMs);
      this.size -= list.length;
      yield* list;
    }
  }
}

export class Crowd {
  /** Times are of admitted requests, from the attempt that was admitted to its end. */
  tally = {
    attempts: 0,
    completed: 0,
    refused: 0,
    withoutDelay: 0,
    gaveUp: 0,
    other: new Map(),
    seconds: [],
    retryMs: [],
  };
  calls = 0;
  mostCalls = 0;
  sleepers = new Sleepers();
  failure = null;

  constructor(client, { vocabSize, newTokens }) {
    this.client = client;
    this.vocabSize = vocabSize;
    this.newTokens = newTokens;
  }

  frame(random) {
    const request = shortRequest(random, this.vocabSize, this.newTokens);
    request.sampling.ignoreEos = true;
    return frameOf(request);
  }

  /** Requests a second with so many clients that never pause. */
  async capacity(clients, seconds) {
    const random = randomSource(1);
    const measure = async (endMs) => {
      let done = 0;
      const worker = async () => {
        for (; performance.now() < endMs; done++) {
          const { code } = await this.client.call(this.frame(random));
          if (code !== OK) throw new Error(`status ${code} while the capacity is measured`);
        }
      };
      await Promise.all(Array.from({ length: clients }, worker));
      return done;
    };
    await measure(performance.now() + (seconds * 1000) / 4);
    const begin = performance.now();
    const done = await measure(begin + seconds * 1000);
    return done / ((performance.now() - begin) / 1000);
  }

  /**
   * New clients come at random at this mean rate, whatever became of those before. Ends at `endMs` with
   * the calls that are under way. Resolves to how many wait for their time to come back then. A client
   * that waits is an entry in a list: were each a promise and a timer, this process would stop to collect
   * them for a tenth of a second at a time, and all clients that were due would come at once.
   */
  async come(ratePerSecond, endMs, sampleMs, onSample) {
    const random = randomSource(2);
    let arrivalMs = performance.now();
    let nextSampleMs = arrivalMs + sampleMs;
    let sampling = Promise.resolve();
    for (let nowMs = arrivalMs; nowMs < endMs; nowMs = performance.now()) {
      for (; arrivalMs <= nowMs; arrivalMs += gapMs(random, ratePerSecond)) {
        this.attempt({ frame: this.frame(random), attempts: 0 });
      }
      for (const client of this.sleepers.takeDue(nowMs)) this.attempt(client);
      if (this.failure) throw this.failure;
      if (this.calls > MAX_CALLS) throw new Error(`${MAX_CALLS} calls wait for an answer`);
      if (nowMs >= nextSampleMs) {
        nextSampleMs += sampleMs;
        await sampling;
        sampling = onSample().catch((error) => {
          this.failure ??= error;
        });
      }
      await sleep(TICK_MS);
    }
    await sampling;
    const drainedByMs = performance.now() + DRAIN_MS;
    while (this.calls > 0 && !this.failure) {
      if (performance.now() > drainedByMs) throw new Error(`${this.calls} calls have no answer`);
      await sleep(TICK_MS);
    }
    if (this.failure) throw this.failure;
    return this.sleepers.size;
  }

  attempt(client) {
    const beginMs = performance.now();
    client.attempts += 1;
    this.tally.attempts += 1;
    this.calls += 1;
    this.mostCalls = Math.max(this.mostCalls, this.calls);
    this.client
      .call(client.frame)
      .then((answer) => this.take(client, answer, beginMs))
      .catch((error) => {
        this.failure ??= error;
      })
      .finally(() => {
        this.calls -= 1;
      });
  }

  take(client, { code, retryDelayMs, pushbackMs }, beginMs) {
    const { tally } = this;
    const nowMs = performance.now();
    if (code === OK) {
      tally.completed += 1;
      tally.seconds.push((nowMs - beginMs) / 1000);
      return;
    }
    if (code !== RESOURCE_EXHAUSTED) {
      tally.other.set(code, (tally.other.get(code) ?? 0) + 1);
      return;
    }
    tally.refused += 1;
    const promised = retryDelayMs !== undefined && retryDelayMs === pushbackMs;
    if (promised) tally.retryMs.push(retryDelayMs);
    else tally.withoutDelay += 1;
    if (client.attempts < MAX_ATTEMPTS) {
      this.sleepers.add(client, nowMs + (promised ? retryDelayMs : UNTOLD_DELAY_MS));
    } else {
      tally.gaveUp += 1;
    }
  }
}
