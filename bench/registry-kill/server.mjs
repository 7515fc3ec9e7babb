/** `llama-steer serve` on one registry, killed at random moments while it is written to. */
import { rmSync } from "node:fs";
import { ClientError, floatsToBytes, Server } from "../lib/server.mjs";

/** Longer than a handful of writes. */
const MAX_WRITING_MS = 300;
const HIDDEN_SIZE = 256;

const rowsOf = (index) => [
  { layer: index % 8, data: floatsToBytes(new Float32Array(HIDDEN_SIZE).fill(index + 1)) },
];

async function digests(client) {
  const found = new Map();
  for await (const { vectorId, digest } of client.vectors.list({})) found.set(vectorId, digest);
  return found;
}

/** Writes one after the other until the server is gone. `due`: what was acknowledged, by id. */
async function writeUntilGone(client, due, first) {
  for (let index = first; ; index += 1) {
    // Every third write removes what an earlier one has made.
    const earlier = `v${index - 2}`;
    const victim = index % 3 === 2 && due.has(earlier) ? earlier : null;
    const id = victim ?? `v${index}`;
    try {
      if (victim) await client.vectors.delete(victim);
      else due.set(id, (await client.vectors.create({ vectorId: id, rows: rowsOf(index) })).digest);
      if (victim) due.delete(victim);
    } catch (error) {
      if (!(error instanceof ClientError) || error.code !== "UNAVAILABLE") throw error;
      return { id, wasRemoval: victim !== null, next: index + 1 };
    }
  }
}

/** `registry`: an empty folder, or the URL of an empty database. */
export async function killServers(model, registry, rounds, random) {
  const start = () => Server.start({ model, args: ["--registry", registry, "--threads", "1"] });
  const tally = { acknowledged: 0, inFlight: 0, kept: 0 };
  const due = new Map();
  let next = 0;
  for (let round = 0; round < rounds; round += 1) {
    const server = await start();
    const client = server.client();
    await client.waitForReady(60_000);
    const exited = new Promise((resolve) => server.child.once("exit", resolve));
    const first = next;
    const timer = setTimeout(() => server.child.kill("SIGKILL"), random() * MAX_WRITING_MS);
    const last = await writeUntilGone(client, due, first);
    clearTimeout(timer);
    client.close();
    await exited;
    rmSync(server.registry, { recursive: true });
    next = last.next;
    tally.acknowledged += next - first - 1;
    tally.inFlight += 1;
    if (await settle(start, due, last)) tally.kept += 1;
  }
  return tally;
}

/** Holds what a new server shows to what is due; true when the write in flight is there. */
async function settle(start, due, { id, wasRemoval }) {
  const server = await start();
  const client = server.client();
  const found = await digests(client);
  client.close();
  const code = await server.stop();
  if (code !== 0) throw new Error(`exit code ${code} after SIGTERM`);
  const kept = wasRemoval ? !found.has(id) : found.has(id);
  const expected = new Map(due);
  if (kept && wasRemoval) expected.delete(id);
  if (kept && !wasRemoval) expected.set(id, found.get(id));
  const text = (map) => JSON.stringify([...map].sort());
  if (text(found) !== text(expected)) {
    throw new Error(`after a kill: ${text(found)} where ${text(expected)} is due`);
  }
  due.clear();
  for (const [name, digest] of found) due.set(name, digest);
  return kept;
}
