/**
 * Writes to a registry in PostgreSQL, cut by SIGKILL of the writing process: before every statement of
 * the transaction, and right after a statement was sent, when the database may or may not take it.
 */
import pg from "pg";
import { runChild } from "./rounds.mjs";
import { PostgresStore } from "./store.mjs";
import { fill, putLater, stateOf, WRITES } from "./writes.mjs";

const TEMPLATE = "registry_kill_template";
const EMPTY = "registry_kill_empty";
const ROUND = "registry_kill_round";

async function withStore(url, body) {
  const store = await PostgresStore.open(url, { pollIntervalMs: 60_000 });
  try {
    return await body(store);
  } finally {
    await store.close();
  }
}

/** A server; its databases are made from one another. */
export class Databases {
  /** `url`: of any database of a server on which databases may be made. */
  constructor(url) {
    this.server = url;
  }

  url(name) {
    const url = new URL(this.server);
    url.pathname = `/${name}`;
    return url.href;
  }

  async query(text, values = [], database = this.server) {
    const client = new pg.Client({ connectionString: database });
    await client.connect();
    try {
      return (await client.query(text, values)).rows;
    } finally {
      await client.end();
    }
  }

  async drop(name) {
    await this.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  }

  /** Fresh, from another one. */
  async make(name, template = "template0") {
    await this.drop(name);
    await this.query(`CREATE DATABASE ${name} TEMPLATE ${template}`);
    return this.url(name);
  }

  /** Until the database has done what killed clients had sent. */
  async quiet(name) {
    const busy = "SELECT 1 FROM pg_stat_activity WHERE datname = $1";
    while ((await this.query(busy, [name])).length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** The statements of every write, its failpoints, and the states before and after it. */
export async function plansOf(databases) {
  const template = await databases.make(TEMPLATE);
  await databases.make(EMPTY);
  await withStore(template, fill);
  const before = await withStore(template, stateOf);
  const plans = [];
  for (const write of Object.keys(WRITES)) {
    const isFirst = WRITES[write] === null;
    await databases.quiet(TEMPLATE);
    const from = isFirst ? EMPTY : TEMPLATE;
    const url = await databases.make(ROUND, from);
    const { code, text } = await runChild(url, write, "count");
    if (code !== 0) throw new Error(`${write}: the child ended with ${code}`);
    const steps = JSON.parse(text);
    plans.push({
      write,
      steps,
      failpoints: steps.flatMap((name, at) => [
        { at, name, half: false },
        ...(name === "acknowledge" ? [] : [{ at, name, half: true }]),
      ]),
      from,
      before: isFirst ? "[]" : before,
      after: await withStore(url, stateOf),
      seen: { before: 0, after: 0 },
    });
  }
  return plans;
}

export async function dispose(databases) {
  for (const name of [ROUND, TEMPLATE, EMPTY]) await databases.drop(name);
}

/** Throws, and leaves the database for a look, when anything is not as it must be. */
export async function runRound(databases, plan, failpoint) {
  const url = await databases.make(ROUND, plan.from);
  const fail = (text) => {
    const where = `${plan.write}, ${failpoint.half ? "after" : "before"} ${failpoint.name}`;
    throw new Error(`${where}: ${text}; see the database ${ROUND}`);
  };
  const cut = await runChild(
    url,
    plan.write,
    String(failpoint.at),
    ...(failpoint.half ? ["half"] : []),
  );
  if (cut.signal !== "SIGKILL") fail(`the child ended with ${cut.code}, not by SIGKILL`);
  await databases.quiet(ROUND);

  const state = await withStore(url, stateOf);
  if (state !== plan.before && state !== plan.after) fail(`between: ${state}`);
  if (failpoint.name === "acknowledge" && state !== plan.after)
    fail("an acknowledged write is lost");
  plan.seen[state === plan.after ? "after" : "before"] += 1;

  const later = await withStore(url, async (store) => {
    await putLater(store);
    return stateOf(store);
  });
  if (JSON.parse(later).length !== JSON.parse(state).length + 1) fail(`a later write: ${later}`);
  const orphans = await databases.query(
    `SELECT digest FROM llama_steer.blobs b
     WHERE NOT EXISTS (SELECT 1 FROM llama_steer.names n WHERE n.digest = b.digest)`,
    [],
    url,
  );
  if (orphans.length > 0) fail(`rows that nothing names: ${orphans.map(({ digest }) => digest)}`);
}
