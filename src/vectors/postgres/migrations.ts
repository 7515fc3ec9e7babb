/**
 * The tables of a registry in PostgreSQL, and how older ones are brought up to date.
 *
 *   blobs   rows of vectors, named by their digest, as safetensors bytes
 *   names   the newest write of each kind and id; a removed id stays as a tombstone
 *   head    one row: the revision of the newest write
 *
 * Every write locks `head` first. So revisions become visible in their order, and a reader that asks
 * for all above the last one it saw misses nothing.
 */
import type { ClientBase } from "pg";
import { StartupError } from "../../errors.js";

/** Each one step forward; never changed after a release, only added to. */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE llama_steer.blobs (
     digest text PRIMARY KEY,
     content bytea NOT NULL
   );
   CREATE TABLE llama_steer.names (
     kind text NOT NULL,
     id text NOT NULL,
     revision bigint NOT NULL UNIQUE,
     digest text REFERENCES llama_steer.blobs (digest),
     entry text NOT NULL,
     PRIMARY KEY (kind, id)
   );
   CREATE TABLE llama_steer.head (
     only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
     revision bigint NOT NULL
   );
   INSERT INTO llama_steer.head (revision) VALUES (0);`,
];

/** Any number that nothing else in the database locks. */
const ADVISORY_LOCK = 5_077_381_260_114_901n;

/** Replicas that start together take turns. Throws a StartupError for tables of a newer version. */
export async function migrate(client: ClientBase): Promise<void> {
  await client.query("BEGIN");
  try {
    await client.query("SELECT pg_advisory_xact_lock($1)", [ADVISORY_LOCK.toString()]);
    await client.query("CREATE SCHEMA IF NOT EXISTS llama_steer");
    await client.query(
      `CREATE TABLE IF NOT EXISTS llama_steer.schema_version (
         only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
         version integer NOT NULL
       )`,
    );
    const { rows } = await client.query<{ version: number }>(
      "SELECT version FROM llama_steer.schema_version",
    );
    const version = rows[0]?.version ?? 0;
    if (version > MIGRATIONS.length) {
      throw new StartupError(
        `the registry's tables have version ${version}; this program knows ${MIGRATIONS.length}: use a newer one`,
      );
    }
    for (const statements of MIGRATIONS.slice(version)) await client.query(statements);
    await client.query(
      `INSERT INTO llama_steer.schema_version (version) VALUES ($1)
       ON CONFLICT (only_row) DO UPDATE SET version = excluded.version`,
      [MIGRATIONS.length],
    );
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  }
}
