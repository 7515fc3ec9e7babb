// One write to a registry, or only its opening, in a process that may end at any step of it:
//   node child.mjs PLACE WRITE STEP [half]       STEP: a number, or "count" to print the steps
// PLACE: a folder, or the URL of a database of PostgreSQL.
// WRITE "" opens an existing registry. Prints "acknowledged" when the write has returned.
import { writeSync } from "node:fs";
import { arm, install, installStatements, step, steps } from "./failpoints.mjs";
import { WRITES } from "./writes.mjs";

const [place, write, at, half] = process.argv.slice(2);
const isDatabase = place.startsWith("postgres://");
const killAt = at === "count" ? null : Number(at);
const body = WRITES[write];

await (isDatabase ? installStatements() : install());
// Only now: the store keeps the functions that it finds when it is loaded.
const { DirectoryStore, PostgresStore } = await import("./store.mjs");
if (!body) arm(killAt, half === "half");
const store = await (isDatabase ? PostgresStore : DirectoryStore).open(place);
if (body) arm(killAt, half === "half");
await body?.(store);
await step("acknowledge");
writeSync(1, at === "count" ? JSON.stringify(steps()) : "acknowledged");
arm(null);
await store.close();
