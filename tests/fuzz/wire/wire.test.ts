/**
 * A live server under mutated calls and mutated connections. Between rounds it gives others what it
 * gave them before, is as empty as before, has logged no error and holds no more memory. What is
 * sent depends on the seed alone; which connections meet in a round does not.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { report, runsOf, seedOf, timeoutMs } from "../length.js";
import { pick, type Random, randomOf } from "../mutate.js";
import { Sessions, send } from "./calls.js";
import { sendBytes } from "./connections.js";
import { connectionBytes } from "./frames.js";
import { goodCalls, missingMethods } from "./requests.js";
import { FuzzedServer } from "./server.js";

const CALLS = 800;
const CONNECTIONS = 400;
const AT_ONCE = 8;
/** Runs between two looks at the server. */
const ROUND = 100;
const CALLS_OF_A_CONNECTION = 50;
/** What no status may tell: places in the source, files, addresses. */
const MACHINE = /node_modules|\.[tj]s:\d|\/tmp\/|0x[0-9a-f]{6}/;

const calls = goodCalls();
const others = calls.flatMap(({ messages }) => messages);

let server: FuzzedServer;

/** Runs `body` while runs are due, in rounds; a failure names the seeds of its round. */
async function fuzz(
  defaultRuns: number,
  body: (random: Random) => Promise<void>,
  onRoundEnd = () => {},
): Promise<number> {
  const isDue = runsOf(defaultRuns);
  let runs = 0;
  while (isDue(runs)) {
    const first = runs;
    const end = runs + ROUND;
    const worker = async () => {
      while (runs < end) await body(randomOf(seedOf(runs++)));
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      onRoundEnd();
      await server.look();
    } catch (error) {
      throw new Error(`seeds ${seedOf(first)} to ${seedOf(end - 1)}`, { cause: error });
    }
  }
  return runs;
}

it("wire: good requests of every method are there to begin from", () => {
  expect(missingMethods()).toEqual([]);
});

describe("wire", () => {
  beforeEach(async () => {
    server = await FuzzedServer.start();
  }, timeoutMs);
  afterEach(async () => {
    expect(await server.stop()).toBe(0);
  });

  it("answers every call, and nothing breaks", { timeout: timeoutMs }, async () => {
    const sessions = new Sessions(server.address, CALLS_OF_A_CONNECTION);
    const statuses = new Map<number | null, number>();
    const body = async (random: Random) => {
      const call = pick(random, calls);
      const answer = await send(sessions.take(), call, random, others);
      if (!answer) return;
      const { grpcStatus, message } = answer;
      statuses.set(grpcStatus, (statuses.get(grpcStatus) ?? 0) + 1);
      if (MACHINE.test(message)) throw new Error(`${call.path}: tells too much: ${message}`);
    };
    const runs = await fuzz(CALLS, body, () => sessions.close());
    // Served, and refused as invalid: both ways are walked.
    expect(statuses.get(0)).toBeGreaterThan(runs / 50);
    expect(statuses.get(3)).toBeGreaterThan(runs / 50);
    const counts = [...statuses].map(([status, count]) => `${status ?? "reset"} ${count}`);
    report("wire: calls", runs, `by status: ${counts.sort().join(", ")}; ${server.memory}`);
  });

  it("takes no harm from connections, whatever they send", { timeout: timeoutMs }, async () => {
    let bytes = 0;
    const runs = await fuzz(CONNECTIONS, async (random) => {
      const connection = connectionBytes(calls, random, others);
      bytes += connection.length;
      await sendBytes(server.address, connection, random);
    });
    expect(bytes).toBeGreaterThan(runs * 100);
    report("wire: connections", runs, `${Math.round(bytes / 1e6)} MB sent; ${server.memory}`);
  });
});
