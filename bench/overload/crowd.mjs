/** The clients: so many that never pause, or as many as come, each following what it is told. */
import { setTimeout as sleep } from "node:timers/promises";
import { randomSource, shortRequest } from "../lib/load.mjs";
import { frameOf, OK, RESOURCE_EXHAUSTED } from "./wire-client.mjs";

/** Refusals after which a client gives up. */
export const MAX_ATTEMPTS = 5;
/** Calls at the same time: more than a pause of seconds on either side brings, unless the service hangs. */
const MAX_CALLS = 20_000;

/** Between two clients that come at random times. */
const gapMs = (random, ratePerSecond) => (-Math.log(1 - random()) / ratePerSecond) * 1000;

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
  /** Wake those who wait for their time to come back. */
  sleepers = new Set();
  over = false;

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
   * the calls that are under way. Resolves to how many wait for their time to come back then.
   */
  async come(ratePerSecond, endMs, sampleMs, onSample) {
    const random = randomSource(2);
    const running = new Set();
    let nextMs = performance.now();
    let nextSampleMs = nextMs + sampleMs;
    let sampling = Promise.resolve();
    while (nextMs < endMs) {
      await sleep(Math.max(0, nextMs - performance.now()));
      // All that are due: where this process is late, the rate must not suffer.
      for (; nextMs <= Math.min(performance.now(), endMs); nextMs += gapMs(random, ratePerSecond)) {
        const one = this.persist(this.frame(random)).finally(() => running.delete(one));
        running.add(one);
      }
      if (this.calls > MAX_CALLS) throw new Error(`${MAX_CALLS} calls wait for an answer`);
      if (performance.now() < nextSampleMs) continue;
      nextSampleMs += sampleMs;
      await sampling;
      sampling = onSample();
    }
    await sampling;
    this.over = true;
    const left = this.sleepers.size;
    for (const wake of this.sleepers) wake();
    await Promise.all(running);
    return left;
  }

  /** One request, as often as it is told to come back. */
  async persist(frame) {
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      const delayMs = await this.attempt(frame);
      if (delayMs === null || this.over) return;
      if (attempt < MAX_ATTEMPTS) await this.pause(delayMs);
      if (this.over) return;
    }
    this.tally.gaveUp += 1;
  }

  /** Null: it has an answer, or none that it could wait for; else milliseconds. */
  async attempt(frame) {
    const { tally } = this;
    const begin = performance.now();
    tally.attempts += 1;
    this.calls += 1;
    this.mostCalls = Math.max(this.mostCalls, this.calls);
    const { code, retryDelayMs, pushbackMs } = await this.client.call(frame).finally(() => {
      this.calls -= 1;
    });
    if (code === OK) {
      tally.completed += 1;
      tally.seconds.push((performance.now() - begin) / 1000);
      return null;
    }
    if (code !== RESOURCE_EXHAUSTED) {
      tally.other.set(code, (tally.other.get(code) ?? 0) + 1);
      return null;
    }
    tally.refused += 1;
    if (retryDelayMs === undefined || retryDelayMs !== pushbackMs) {
      tally.withoutDelay += 1;
      return 1000;
    }
    tally.retryMs.push(retryDelayMs);
    return retryDelayMs;
  }

  /** Until the time is over, or the run is. */
  pause(ms) {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.sleepers.add(wake);
    });
  }
}
